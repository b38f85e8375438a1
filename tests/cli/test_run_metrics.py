"""Metrics at the end of a run: captions against references, answers against those of a table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from blip2cli.cli.app import call

SAMPLES = Path(__file__).parents[2] / "sample_images"
NAMES = ("breakfast.jpg", "cats.png")


@pytest.fixture
def images(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for name in NAMES:
        shutil.copy(SAMPLES / name, folder)
    return folder


def table(path: Path, *rows: dict[str, object]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def run(capfd: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str]:
    code = call([*map(str, arguments), "--model", "tiny"])
    return code, capfd.readouterr().err


def test_captions_and_answers_are_compared_once_the_output_is_finished(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    texts = "two cats and a pizza on a blue background", "a small dog"
    references = table(
        tmp_path / "references.jsonl",
        {"file_name": "cats.png", "captions": texts},
        {"file_name": "breakfast.jpg", "captions": ["no such picture"]},
    )
    out, summary = tmp_path / "c.jsonl", tmp_path / "s.json"
    arguments = "caption", images, "-o", out, "--references", references, "--summary", summary
    code, printed = run(capfd, *arguments)
    assert code == 0
    assert "2 images captioned" in printed
    assert "cider" in printed.partition("Against ")[2]
    figures = json.loads(summary.read_text())["metrics"]["figures"]
    assert figures["rouge"]["value"] == pytest.approx(0.5, abs=0.1)
    # A run that finds nothing left to do reads the output as well.
    assert "rouge" in run(capfd, *arguments, "--resume")[1]
    # An output of ours in the place of references is noticed.
    assert call(["eval", str(references), "--against", str(out), "--text-column", "captions"]) == 2
    assert "they look swapped" in capfd.readouterr().err

    questions = table(
        tmp_path / "q.jsonl",
        {"file_name": "cats.png", "question": "how many cats are there?", "answer": "two"},
        {"file_name": "breakfast.jpg", "question": "is there a cat?", "answer": "maybe"},
    )
    asked = "ask", images, "--questions", questions, "-o", tmp_path / "a.jsonl", "--log-json"
    code, printed = run(capfd, *asked)
    event = json.loads(printed.splitlines()[-1])
    assert (code, event["event"], event["rows"]) == (0, "evaluated", 2)
    assert {"exact", "normalized"} <= event["figures"].keys()


def test_references_need_an_output_and_are_read_before_the_run(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    references = table(tmp_path / "r.jsonl", {"file_name": "cats.png", "caption": "x"})
    code, printed = run(capfd, "caption", images, "--references", references)
    assert code == 2
    assert "there is none to read" in printed
    missing = tmp_path / "none.jsonl"
    out = tmp_path / "o.jsonl"
    code, printed = run(capfd, "caption", images, "--references", missing, "-o", out)
    assert code == 2
    assert "There is no file" in printed
    assert not out.exists()


def test_references_of_other_images_are_a_remark_after_a_good_run(
    images: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    references = table(tmp_path / "r.jsonl", {"file_name": "other.png", "caption": "x"})
    out = tmp_path / "o.jsonl"
    code, printed = run(capfd, "caption", images, "--references", references, "-o", out)
    assert code == 0
    assert "could not be computed: No row" in printed
