"""``--report`` of caption, ask and embed: a page of the finished output."""

from __future__ import annotations

import io
import json
import os
import shutil
from pathlib import Path

import pytest

from blip2cli.cli.app import call
from blip2cli.report import scores
from tests.report.helpers import read_page, rows_file

SAMPLES = Path(__file__).parents[2] / "sample_images"
NAMES = ("breakfast.jpg", "cats.png")


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    os.mkdir("photos")
    for name in NAMES:
        shutil.copy(SAMPLES / name, "photos")


def run(*arguments: object) -> int:
    return call([*map(str, arguments), "--model", "tiny"])


def test_captions_have_a_page_every_night(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(scores, "evaluate_rows")  # what the run has found is not computed again
    Path("photos/broken.jpg").write_bytes(b"\xff\xd8")
    references = rows_file(
        Path("r.jsonl"), *({"file_name": name, "caption": "two cats"} for name in NAMES)
    )
    arguments = (
        "caption", "photos", "-o", "c.jsonl", "--report", "page.html", "--references", references,
    )  # fmt: skip
    assert run(*arguments) == 3
    assert "3 rows and 2 pictures into page.html" in capfd.readouterr().err
    first = read_page(Path("page.html")).run["outputs"][0]
    assert run(*arguments, "--overwrite", "--log-json") == 3
    event = json.loads(capfd.readouterr().err.splitlines()[-1])
    assert (event["event"], event["rows"], event["pictures"]) == ("page_written", 3, 2)
    page = read_page(Path("page.html"))
    output = page.run["outputs"][0]
    assert (output["token"] != first["token"], output["places"]) == (True, first["places"])
    assert ["model", "tiny"] in output["settings"]
    assert output["seconds"]["model"] > 0
    assert output["errors"] == [["truncated", 1]]
    assert not [note for note in page.run["notes"] if "ictures" in note]  # its row says it
    assert page.rows["image"] == [0, 1, -1]
    assert "rouge" in {one["name"] for one in page.run["metrics"]}
    # Later, without being told where the pictures are: the output knows its source.
    assert call(["report", "c.jsonl", "-o", "later.html"]) == 0
    assert read_page(Path("later.html")).rows["image"] == [0, 1, -1]


def test_answers_and_vectors_have_pages(monkeypatch: pytest.MonkeyPatch) -> None:
    questions = rows_file(
        Path("q.jsonl"),
        {"file_name": "cats.png", "question": "how many cats are there?", "answer": "two"},
    )
    assert (
        run("ask", "photos", "--questions", questions, "-o", "a.jsonl", "--report", "a.html") == 0
    )
    assert read_page(Path("a.html")).rows["references"] == [["two"]]
    # Paths on stdin are named from here, and come once.
    paths = io.BytesIO(b"".join(f"photos/{name}\n".encode() for name in NAMES))
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(paths))
    assert run("embed", "-", "-o", "v/", "--report", "v.html") == 0
    page = read_page(Path("v.html"))
    assert page.rows["image"] == [0, 1]
    assert [near[0][0] for near in page.rows["neighbours"]] == [1, 0]
    assert run("embed", "photos", "-o", "w.parquet", "--report", "w.html", "--no-images") == 0
    assert read_page(Path("w.html")).run["sprites"] is None


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["caption", "photos", "--report", "p.html"], "there is none to read"),
        (["caption", "photos", "-o", "c.jsonl", "--report", "p.json"], "another suffix"),
        (["caption", "photos", "-o", "c.jsonl", "--report", "other.html"], "is no page"),
        (["caption", "photos", "-o", "c/", "--report", "c/p.html"], "belongs to the output"),
        (["caption", "photos", "-o", "p_files/", "--report", "p.html"], "keeps its pictures in"),
        (["caption", "photos", "-o", "p_files/a/c.jsonl", "--report", "p.html"], "keeps its pict"),
        (
            ["caption", "photos", "-o", "c.jsonl", "--report", "p.html", "--summary", "p.html"],
            "belongs to the output",
        ),
        (["caption", "photos", "-o", "c.jsonl", "--no-images"], "name one with --report"),
        (["embed", "--text", "x", "-o", "v.parquet", "--report", "p.html"], "texts are embedded"),
    ],
)
def test_what_stands_in_the_way_is_said_before_the_run(
    arguments: list[str], said: str, capfd: pytest.CaptureFixture[str]
) -> None:
    Path("other.html").write_text("<p>mine</p>")
    assert run(*arguments) == 2
    assert said in capfd.readouterr().err
    assert not Path("c.jsonl").exists()
