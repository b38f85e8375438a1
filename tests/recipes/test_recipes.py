"""Each recipe gives a command that can do what was added."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

from blip2cli.model.checkpoint.embedded import embedded_path
from tests.conftest import environment

ROOT = Path(__file__).parents[2]


def run(recipe: str, folder: Path, *arguments: str | Path, code: int = 0, **env: str) -> str:
    """What the command with the addition prints; ``code`` is the exit code it must have."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.recipes.{recipe}", *map(str, arguments)],
        cwd=folder,
        env=environment(folder / "hf", PYTHONPATH=str(ROOT), **env),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == code, done.stderr
    return done.stdout or done.stderr


def test_add_a_source(tmp_path: Path, images: Path) -> None:
    for name in ("a.png", "b.jpg"):
        (tmp_path / name).write_bytes((images / name).read_bytes())
    (tmp_path / "album.m3u").write_text("#EXTM3U\na.png\nb.jpg\n")
    shown = run("added_source", tmp_path, "caption", "album.m3u", "--model", "tiny", "--dry-run")
    assert shown.split()[:5] == ["caption:", "2", "images", "a.png", "b.jpg"]


def test_add_an_output_format(tmp_path: Path, images: Path) -> None:
    out = tmp_path / "rows.tab"
    run("added_output", tmp_path, "caption", images / "a.png", "--model", "tiny", "-o", out, "-q")
    assert out.read_text().startswith("a.png\t40\t30\t")


def test_add_a_conversion_format(tmp_path: Path) -> None:
    row = {"file_name": "a.png", "width": 1, "height": 1, "caption": "a cat", "logprob": -1.0}
    (tmp_path / "rows.jsonl").write_text(json.dumps(row) + "\n")
    run("added_format", tmp_path, "convert", "rows.jsonl", "rows.md")
    assert (tmp_path / "rows.md").read_text() == "- a.png: a cat\n"


def test_add_a_language_model(tmp_path: Path, images: Path) -> None:
    folder = tmp_path / "mine"
    shutil.copytree(embedded_path("tiny"), folder)
    config = json.loads((folder / "config.json").read_text())
    config["text_config"]["model_type"] = "gpt_neox"
    (folder / "config.json").write_text(json.dumps(config))
    out = run("added_family", tmp_path, "ask", images / "a.png", "--model", "mine", "-q", "what?")
    assert json.loads(out)["question"] == "what?"


def test_add_a_task(tmp_path: Path, images: Path) -> None:
    out = run("added_task", tmp_path, "brightness", images / "a.png", "--model", "tiny")
    row = json.loads(out)
    assert row["file_name"] == "a.png"
    assert 0 < row["brightness"] < 255


def test_add_an_option(tmp_path: Path, images: Path) -> None:
    command = ["brightness", images / "a.png", "--model", "tiny", "-o", "rows.jsonl", "-q"]
    run("added_task", tmp_path, *command, BLIP2CLI_DIGITS="0")
    row = json.loads((tmp_path / "rows.jsonl").read_text())
    assert row["brightness"] == round(row["brightness"])
    refused = run("added_task", tmp_path, *command, "--digits", "3", "--resume", code=2)
    assert "--digits" in refused
    assert "--digits" in run("added_task", tmp_path, "brightness", "--help")
