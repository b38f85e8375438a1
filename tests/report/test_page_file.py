"""Where a page is written: what it replaces, what it never touches, what a failure leaves."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from blip2cli.report import page_file
from blip2cli.report.make import ONE_FILE_ROWS
from blip2cli.storage import durable
from tests.command import COMMAND
from tests.report.helpers import pictures, read_page, report, rows_file
from tests.test_bad_input import without_roots_reading_right


@pytest.fixture(autouse=True)
def inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def output(name: str, count: int = 3, folder: str = "photos") -> Path:
    """Rows about ``count`` pictures, so many that pictures are files beside their page."""
    rows = [{"file_name": n, "caption": "x"} for n in pictures(Path(folder), count)]
    return rows_file(Path(name), *rows * (ONE_FILE_ROWS // count + 1))


def files() -> list[str]:
    return sorted(os.listdir("page_files"))


def test_a_page_replaces_its_predecessor_and_its_sheets(tmp_path: Path) -> None:
    output("a.jsonl")
    assert report("a.jsonl", "--image-root", "photos", "-o", "page.html") == 0
    first, before = Path("page.html").read_bytes(), files()
    assert report("a.jsonl", "--image-root", "photos", "-o", "page.html") == 0
    assert (Path("page.html").read_bytes(), files()) == (first, before)
    output("a.jsonl", 30)  # the output of the next night: another one in the same place
    assert report("a.jsonl", "--image-root", "photos", "-o", "page.html") == 0
    named = read_page(Path("page.html")).run["sprites"]["sheets"]
    assert [f"page_files/{name}" for name in files()] == sorted(named)
    os.rename("a.jsonl", "moved.jsonl")  # no token tells rows of others: the texts do
    assert report("moved.jsonl", "--image-root", "photos", "-o", "page.html") == 0


def test_a_page_of_another_output_stays_unless_told(capsys: pytest.CaptureFixture[str]) -> None:
    output("a.jsonl")
    output("b.jsonl", 2)
    assert report("a.jsonl", "--no-images", "-o", "page.html") == 0
    before = Path("page.html").read_bytes()
    assert report("b.jsonl", "--no-images", "-o", "page.html") == 2
    assert "the page of another output; add --overwrite" in capsys.readouterr().err
    assert Path("page.html").read_bytes() == before
    assert report("b.jsonl", "--no-images", "-o", "page.html", "--overwrite") == 0
    assert read_page(Path("page.html")).run["outputs"][0]["name"] == "b.jsonl"


@pytest.mark.parametrize("content", ["", "<html>", '<script id="run">{}</script>', "no" * 99])
def test_what_is_no_page_is_never_replaced(
    content: str, capsys: pytest.CaptureFixture[str]
) -> None:
    output("a.jsonl")
    Path("page.html").write_text(content)
    assert report("a.jsonl", "--no-images", "-o", "page.html", "--overwrite") == 2
    assert "is no page" in capsys.readouterr().err
    assert Path("page.html").read_text() == content


def test_files_of_others_in_the_folder_stay(capsys: pytest.CaptureFixture[str]) -> None:
    output("a.jsonl")
    os.mkdir("page_files")
    Path("page_files/style.css").write_text("x")
    assert report("a.jsonl", "--image-root", "photos", "-o", "page.html", "--overwrite") == 2
    assert "holds 'style.css'" in capsys.readouterr().err
    assert files() == ["style.css"]
    Path("page_files/style.css").unlink()
    os.rmdir("page_files")
    os.mkdir("elsewhere")
    os.symlink("elsewhere", "page_files")
    assert report("a.jsonl", "--image-root", "photos", "-o", "page.html") == 2
    assert os.listdir("elsewhere") == []


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("page.jsonl", "another suffix"),
        ("nowhere/page.html", "does not exist"),
        ("s3://bucket/page.html", "local disk"),
        ("photos.html", "no page"),
    ],
)
def test_places_that_are_none(name: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    output("a.jsonl")
    os.mkdir("photos.html")
    assert report("a.jsonl", "--no-images", "-o", name) == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_cannot_be_read_is_named() -> None:
    output("a.jsonl")
    Path("page_files").mkdir(0)
    done = subprocess.run(
        [COMMAND, "report", "a.jsonl", "-o", "page.html"],
        preexec_fn=without_roots_reading_right, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, Path("page.html").exists()) == (2, False)
    assert "page_files', where pictures of the page belong, cannot be read" in done.stderr


def test_a_failure_leaves_the_page_that_was_there_with_its_sheets(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output("a.jsonl")
    arguments = "a.jsonl", "--image-root", "photos", "-o", "page.html"
    assert report(*arguments) == 0
    page, sheets = Path("page.html").read_bytes(), files()
    output("a.jsonl", 60)
    replace_file = durable.replace_file
    written = []

    def full(temporary: str, final: str, *more: object, **options: object) -> None:
        if final.endswith(".html"):
            written.extend(files())
            raise OSError(28, "No space left on device")
        replace_file(temporary, final, *more, **options)  # type: ignore[arg-type]

    monkeypatch.setattr(page_file.durable, "replace_file", full)
    assert report(*arguments) == 1
    assert "No space left on device); a page that was there is unchanged" in capsys.readouterr().err
    assert len(written) > len(sheets)
    assert (Path("page.html").read_bytes(), files()) == (page, sheets)


def test_sheets_of_a_killed_report_are_swept_up() -> None:
    output("a.jsonl")
    os.mkdir("page_files")
    for name in ("sheet-0123456789abcdef.sprites", ".sheet-0123456789abcdef.sprites.01234567.tmp"):
        Path("page_files", name).write_bytes(b"x")
    assert report("a.jsonl", "--image-root", "photos", "-o", "page.html") == 0
    assert len(files()) == 1
    assert files() != ["sheet-0123456789abcdef.sprites"]
