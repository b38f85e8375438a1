"""Each recipe gives a command that can do what was added."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from tests.conftest import environment

ROOT = Path(__file__).parents[2]


def run(recipe: str, folder: Path, *arguments: str | Path) -> str:
    """Stdout of the command with the addition."""
    done = subprocess.run(
        [sys.executable, "-m", f"tests.recipes.{recipe}", *map(str, arguments)],
        cwd=folder,
        env=environment(folder / "hf", PYTHONPATH=str(ROOT)),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


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
