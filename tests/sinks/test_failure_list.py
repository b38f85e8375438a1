from __future__ import annotations

import json
from pathlib import Path

import pytest

from blip2cli.errors import ImageError, RunError, option
from blip2cli.options import ErrorsMode, OutputOptions
from blip2cli.sinks import (
    FailureList,
    check_output,
    old_failure_list,
    open_failure_list,
    read_output,
)
from blip2cli.storage import durable
from tests.sinks.helpers import listing

TRUNCATED = ImageError("truncated", "The PNG file ends early.")


def open_file(folder: Path) -> FailureList:
    return open_failure_list(OutputOptions(str(folder / "out.jsonl.gz"), overwrite=True))


def lines(folder: Path) -> list[dict[str, str]]:
    text = (folder / "out.jsonl.gz.errors").read_text("utf-8")
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
    assert lines(tmp_path) == [first, first | {"file_name": "caf\\udce9.png"}]
    assert listing(tmp_path) == {"out.jsonl.gz.errors", ".out.jsonl.gz.meta.json"}


def test_the_file_of_an_earlier_run_goes_at_the_right_moment(tmp_path: Path) -> None:
    def old() -> None:
        errors = open_file(tmp_path)
        errors.write("old.png", TRUNCATED)
        errors.close()

    def listed() -> list[str]:
        return [line["file_name"] for line in lines(tmp_path)]

    old()
    open_file(tmp_path).abort()
    assert listed() == ["old.png"]  # nothing took its place

    errors = open_file(tmp_path)
    assert listed() == ["old.png"]
    errors.close()
    assert not (tmp_path / "out.jsonl.gz.errors").exists()  # a complete run without failures

    old()
    errors = open_file(tmp_path)
    errors.write("a.png", TRUNCATED)
    errors.abort()
    assert listed() == ["a.png"]
    assert listing(tmp_path) == {"out.jsonl.gz.errors", ".out.jsonl.gz.meta.json"}


def test_a_full_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(descriptor: int, data: bytes) -> None:
        raise OSError(28, "No space left on device")

    errors = open_file(tmp_path)
    errors.write("a.png", TRUNCATED)
    monkeypatch.setattr(durable, "write_all", full)
    with pytest.raises(RunError, match=r"out.jsonl.gz.errors' failed .No space left"):
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


def test_carried_columns_stand_in_the_list_so_that_it_can_be_fed_back(tmp_path: Path) -> None:
    errors = open_file(tmp_path)
    errors.write("a.png", TRUNCATED, {"sku": 7, "message": "of the source"})
    errors.close()
    (line,) = lines(tmp_path)
    assert list(line.items())[3:] == [("sku", 7)]
    assert line["message"] == "The PNG file ends early."


def test_a_message_in_the_list_names_no_option_by_its_code_name() -> None:
    message = str(ImageError("outside_source", f"Not without {option('absolute_paths')}."))
    assert message == "Not without absolute paths."


def test_a_list_of_an_older_version_is_known_from_an_output_of_its_name(tmp_path: Path) -> None:
    out, old = str(tmp_path / "out.jsonl"), tmp_path / "out.errors.jsonl"
    assert old_failure_list(out) is None
    old.write_text('{"file_name": "a.png", "width": 1, "height": 1, "caption": "a cat"}\n')
    assert old_failure_list(out) is None
    old.write_text('{"file_name": "a.png", "error_type": "truncated", "message": "It ends."}\n')
    assert old_failure_list(out) == str(old)


@pytest.mark.parametrize("failing", [True, False])
def test_the_list_of_a_run_that_was_killed_before_its_first_row(
    tmp_path: Path, failing: bool
) -> None:
    killed = open_file(tmp_path)
    killed.write("a.png", TRUNCATED)
    killed.abort()
    options = OutputOptions(str(tmp_path / "out.jsonl.gz"), resume=True)
    check_output(options)
    assert read_output(options, lambda name: 1) is None
    errors = open_failure_list(options)
    if failing:
        errors.write("b.png", TRUNCATED)
    errors.close()
    names = [line["file_name"] for line in lines(tmp_path)] if failing else []
    assert names == ["b.png"] * failing
    assert (tmp_path / "out.jsonl.gz.errors").exists() == failing
