"""The guide's search of images by text, in its own words."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from blip2cli.cli.app import call

ROOT = Path(__file__).parent.parent
PAGE = (ROOT / "docs" / "guides" / "search.md").read_text(encoding="utf-8")
SECTION = PAGE.split("## Search images by text")[1].split("\n## ")[0]
COMMANDS = [
    shlex.split(line.removeprefix("$ blip2cli "))
    for line in SECTION.splitlines()
    if line.startswith("$ blip2cli ")
]
TEXTS = [COMMANDS[1][i + 1] for i, word in enumerate(COMMANDS[1]) if word == "--text"]
Found = dict[str, list[str]]  # the three best images of each text, best first


def found_by(folder: Path) -> tuple[Found, Found]:
    """What NumPy and DuckDB find in the two files of ``folder``."""
    python, query = re.findall(r"<!-- search -->\n```(?:python|sql)\n(.*?)```", SECTION, re.DOTALL)
    lines = subprocess.run(
        [sys.executable, "-c", python], cwd=folder, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    ask = "import sys, json, duckdb; print(json.dumps(duckdb.sql(sys.argv[1]).fetchall()))"
    rows = subprocess.run(
        [sys.executable, "-c", ask, query], cwd=folder, capture_output=True, text=True, check=True
    ).stdout
    by_duckdb: Found = {}
    for text, name in json.loads(rows):
        by_duckdb.setdefault(text, []).append(name)
    return parsed(lines), by_duckdb


def parsed(lines: list[str]) -> Found:
    """What the NumPy example printed."""
    found = {}
    for line in lines:
        text, names = line.split(" [")
        found[text] = re.findall(r"'(.*?)'", names)
    return found


def embed(folder: Path, monkeypatch: pytest.MonkeyPatch, model: str) -> None:
    """Run the section's commands in ``folder``, with ``model`` in place of tiny-itm."""
    (folder / "sample_images").symlink_to(ROOT / "sample_images")
    monkeypatch.chdir(folder)
    for words in COMMANDS:
        assert words[words.index("--model") + 1] == "tiny-itm"
        assert call([model if word == "tiny-itm" else word for word in words]) == 0


def test_the_search_ranks_images_by_the_contrastive_score(
    retrieval_checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    embed(tmp_path, monkeypatch, str(retrieval_checkpoint))
    by_numpy, by_duckdb = found_by(tmp_path)
    want = contrastive(retrieval_checkpoint)
    assert by_numpy == want
    assert by_duckdb == want
    assert len({tuple(names) for names in want.values()}) == len(TEXTS)


def contrastive(checkpoint: Path) -> Found:
    """The three best images of each text by the model's own score."""
    from blip2cli.images.batch_stream import BatchStream
    from blip2cli.model.retrieval import Pair
    from blip2cli.model.wrapper import Blip2
    from blip2cli.options import LoaderOptions, ModelOptions, SourceOptions
    from blip2cli.sources import open_sources

    model = Blip2.load(ModelOptions(str(checkpoint), device="cpu", dtype="float32"))
    assert model.retrieval is not None
    refs = open_sources(SourceOptions((str(ROOT / "sample_images"),)))
    (batch,) = BatchStream(refs, model.spec, LoaderOptions(workers=0))
    names = [item.file_name for item in batch.items]
    features = model.features(batch.pixels)
    found = {}
    for text in TEXTS:
        pairs = [Pair(image, text) for image in range(len(names))]
        scores = model.retrieval.contrastive_scores(features, pairs).numpy()
        found[text] = [names[i] for i in np.argsort(-scores, kind="stable")[:3]]
    return found


def test_tiny_itm_finds_what_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    embed(tmp_path, monkeypatch, "tiny-itm")
    by_numpy, by_duckdb = found_by(tmp_path)
    assert by_numpy == by_duckdb
    (shown,) = re.findall(r"<!-- found -->\n```\n(.*?)```", SECTION, re.DOTALL)
    assert by_numpy == parsed(shown.splitlines())
    assert [names[0] for names in by_numpy.values()] == ["farm/cows.jpg", "harbor.webp"]
