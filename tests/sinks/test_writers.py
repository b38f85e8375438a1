"""What holds for every format."""

from __future__ import annotations

import errno
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blip2cli.errors import OutputError, RunError
from blip2cli.sinks import Column
from blip2cli.storage import durable
from blip2cli.storage.text_encoding import from_utf8
from tests.sinks.helpers import FORMATS, listing, open_out, put, read, row
from tests.strategies import ANY_TEXT

every_format = pytest.mark.parametrize("suffix", FORMATS)


def leftovers(folder: Path) -> set[str]:
    return {name for name in listing(folder) if not name.endswith(".meta.json")}


@every_format
def test_rows_arrive_in_order(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    sink = open_out(out)
    assert listing(tmp_path) == set()  # nothing before the first row
    sink.write([row(0), row(1)])
    sink.write([])
    sink.commit()
    sink.write([row(2)])
    sink.close()
    assert read(out) == [row(n) for n in range(3)]
    assert leftovers(tmp_path) == {out.name}


@every_format
def test_no_rows_make_an_empty_file(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    open_out(out).close()
    assert read(out) == []
    assert leftovers(tmp_path) == {out.name}


@every_format
def test_an_aborted_run_without_rows_leaves_nothing(tmp_path: Path, suffix: str) -> None:
    open_out(tmp_path / f"out.{suffix}").abort()
    assert listing(tmp_path) == set()


@every_format
def test_overwrite_keeps_the_old_file_until_there_is_something_new(
    tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out.{suffix}"
    first = open_out(out)
    first.write([row(7)])
    first.close()
    with pytest.raises(OutputError, match="overwrite to replace it"):
        open_out(out)

    sink = open_out(out, overwrite=True)
    assert read(out) == [row(7)]
    sink.abort()
    assert read(out) == [row(7)]

    sink = open_out(out, overwrite=True)
    sink.write([row(1)])
    sink.close()
    assert read(out) == [row(1)]
    assert leftovers(tmp_path) == {out.name}


@every_format
def test_files_obey_the_umask(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    before = os.umask(0o027)
    try:
        sink = open_out(out)
        sink.write([row(1)])
        sink.close()
    finally:
        os.umask(before)
    assert out.stat().st_mode & 0o777 == 0o640


@every_format
def test_inline_errors(tmp_path: Path, suffix: str) -> None:
    out = tmp_path / f"out.{suffix}"
    sink = open_out(out, errors="inline")
    bad = dict.fromkeys(row(0)) | {"file_name": "bad.png", "error": "empty: The file is empty."}
    sink.write([row(0), bad])
    sink.close()
    assert read(out) == [row(0) | {"error": None}, bad]


@every_format
@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(ANY_TEXT, ANY_TEXT), min_size=1, max_size=5))
def test_any_name_and_any_text_round_trip(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, texts: list[tuple[str, str]]
) -> None:
    out = tmp_path_factory.mktemp("texts") / f"out.{suffix}"
    columns = (Column("caption", "string"), Column("logprob", "float"), Column("all", "texts"))
    rows = [
        row(0, caption, name) | {"all": [{"text": caption, "logprob": -0.1}]}
        for name, caption in texts
    ]
    sink = open_out(out, columns)
    sink.write(rows)
    sink.close()
    found = read(out)
    if suffix == "parquet":
        found = [unescaped(value) for value in found]
    assert found == rows


def unescaped(value: Any) -> Any:
    if isinstance(value, str):
        return from_utf8(value)
    if isinstance(value, dict):
        return {key: unescaped(item) for key, item in value.items()}
    return [unescaped(item) for item in value] if isinstance(value, list) else value


class FullDisk:
    """Lets ``free`` bytes through, then fails with a full disk."""

    def __init__(self, free: int) -> None:
        self.free = free

    def __call__(self, descriptor: int, data: memoryview) -> int:
        if not self.free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        taken = min(self.free, len(data))
        self.free -= taken
        return REAL_WRITE(descriptor, data[:taken])


REAL_WRITE = os.write


@every_format
def test_a_full_disk_stops_with_one_sentence_and_keeps_what_was_safe(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / f"out.{suffix}"
    sink = open_out(out)
    sink.write([row(0), row(1)])
    sink.commit()
    monkeypatch.setattr(durable.os, "write", FullDisk(10))
    with pytest.raises(RunError, match=r"No space left on device.*2 rows are safe"):
        put(sink, *(row(n) for n in range(2, 900)))
    with pytest.raises(RunError, match="failed before"):
        put(sink, row(3))
    monkeypatch.undo()
    sink.abort()
    if suffix == "parquet":
        (part,) = (path for path in tmp_path.iterdir() if ".part-" in path.name)
        assert leftovers(tmp_path) == {part.name}
        out = part.rename(tmp_path / "part.parquet")
    assert read(out) == [row(0), row(1)]


@every_format
def test_a_failed_fsync_is_final(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = open_out(tmp_path / f"out.{suffix}")
    attempts = 0

    def failing(descriptor: int) -> None:
        nonlocal attempts
        attempts += 1
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(os, "fsync", failing)
    with pytest.raises(RunError, match=r"Input/output error.*no row was written"):
        put(sink, row(0))
    with pytest.raises(RunError):
        sink.close()
    sink.abort()
    assert attempts == 1  # never tried again
    assert read_if_there(tmp_path / f"out.{suffix}") is None


def read_if_there(path: Path) -> list[dict[str, Any]] | None:
    return read(path) if path.exists() else None


def test_jsonl_does_not_wait_for_pyarrow() -> None:
    code = "import sys, blip2cli.sinks; print({'pyarrow', 'torch', 'numpy'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
