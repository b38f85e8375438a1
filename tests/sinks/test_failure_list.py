from __future__ import annotations

import json
from pathlib import Path

import pytest

from blip2cli.errors import ImageError, RunError
from blip2cli.options import ErrorsMode, OutputOptions
from blip2cli.sinks import FailureList, open_failure_list
from blip2cli.storage import durable
from tests.sinks.helpers import listing

TRUNCATED = ImageError("truncated", "The PNG file ends early.")


def open_file(folder: Path) -> FailureList:
    return open_failure_list(OutputOptions(str(folder / "out.jsonl.gz"), overwrite=True))


def lines(folder: Path) -> list[dict[str, str]]:
    text = (folder / "out.errors.jsonl").read_text("utf-8")
    return [json.loads(line) for line in text.splitlines()]


def test_the_file_appears_with_the_first_failure(tmp_path: Path) -> None:
    errors = open_file(tmp_path)
    errors.commit()
    assert listing(tmp_path) == set()
    errors.write("a\n.png", TRUNCATED)
    first = {
        "file_name": "a\n.png",
        "error_type": "truncated",
        "message": "The PNG file ends early.",
    }
    assert lines(tmp_path) == [first]
    errors.write("caf\udce9.png", TRUNCATED)
    errors.commit()
    errors.close()
    assert lines(tmp_path) == [first, first | {"file_name": "caf\udce9.png"}]
    assert listing(tmp_path) == {"out.errors.jsonl"}


def test_the_file_of_an_earlier_run_goes_at_the_right_moment(tmp_path: Path) -> None:
    stale = tmp_path / "out.errors.jsonl"

    stale.write_text("old\n")
    open_file(tmp_path).abort()
    assert stale.read_text() == "old\n"  # nothing took its place

    errors = open_file(tmp_path)
    assert stale.read_text() == "old\n"
    errors.close()
    assert not stale.exists()  # a complete run without failures

    stale.write_text("old\n")
    errors = open_file(tmp_path)
    errors.write("a.png", TRUNCATED)
    errors.abort()
    assert [line["file_name"] for line in lines(tmp_path)] == ["a.png"]
    assert listing(tmp_path) == {"out.errors.jsonl"}


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    errors = open_file(tmp_path)
    errors.write("a.png", TRUNCATED)
    monkeypatch.setattr(durable, "write_all", full)
    with pytest.raises(RunError, match=r"out.errors.jsonl' failed .No space left"):
        errors.write("b.png", TRUNCATED)
    errors.abort()
    assert [line["file_name"] for line in lines(tmp_path)] == ["a.png"]


@pytest.mark.parametrize(
    ("out", "mode"), [(None, "inline"), ("out.jsonl", "inline"), (None, "file")]
)
def test_failures_inline_or_beside_stdout_are_noted_nowhere_else(
    tmp_path: Path, out: str | None, mode: ErrorsMode
) -> None:
    path = None if out is None else str(tmp_path / out)
    errors = open_failure_list(OutputOptions(path, errors=mode))
    errors.write("a.png", TRUNCATED)
    errors.commit()
    errors.close()
    assert listing(tmp_path) == set()


def test_a_failed_fsync_is_not_tried_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    errors = open_file(tmp_path)
    errors.write("a.png", TRUNCATED)
    attempts = 0

    def failing(descriptor: int) -> None:
        nonlocal attempts
        attempts += 1
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(durable.os, "fsync", failing)
    for _ in range(2):
        with pytest.raises(RunError):
            errors.commit()
    errors.abort()
    assert attempts == 1
