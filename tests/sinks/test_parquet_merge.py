"""The merge of the parts of a Parquet output, and what may stand in its way."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from blip2cli.errors import OutputError, RunError
from blip2cli.sinks import Column, parquet
from blip2cli.sinks.base import ColumnType
from blip2cli.storage import durable
from blip2cli.storage.atomic import AtomicFile
from tests.sinks.helpers import listing, open_out, put, read, row
from tests.sinks.test_damage import appending, journal_of
from tests.storage.test_durable import no_links

META = ".out.parquet.meta.json"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.parquet"


@pytest.mark.parametrize("kind", ["embedding", "texts"])
def test_bytes_do_not_tell_who_merged_the_parts(kind: ColumnType, tmp_path: Path) -> None:
    """The run that wrote them, or a later one that found nothing left to do and knows the schema
    from the parts alone."""
    columns = (Column("column", kind, 4 if kind == "embedding" else None),)
    value: object = [{"text": "a", "logprob": -1.0}]
    if kind == "embedding":
        value = np.zeros(4, np.float32)
    row = {"width": 1, "height": 2, "file_name": "a", "column": value}
    written = []
    for name in ("run", "later"):
        out = tmp_path / f"{name}.parquet"
        sink = open_out(out, columns)
        sink.write([row])
        sink.commit()
        if name == "run":
            sink.close()
        else:
            sink.abort()
            journal_of(out).complete()
        written.append(out.read_bytes())
    assert written[0] == written[1]


def test_a_failed_merge_leaves_the_parts(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = open_out(out)
    sink.write([row(0)])
    sink.commit()

    def full(temporary: str, final: str, replace: bool) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(durable, "rename_into_place", full)
    with pytest.raises(RunError, match="1 rows are safe in hidden part files"):
        sink.close()
    sink.abort()
    assert listing(tmp_path) == {META, ".out.parquet.part-000000"}


def test_a_damaged_part_stops_the_merge_with_a_sentence(out: Path, tmp_path: Path) -> None:
    sink = open_out(out)
    sink.write([row(0)])
    sink.commit()
    part = tmp_path / ".out.parquet.part-000000"
    part.write_bytes(part.read_bytes()[:-20])
    with pytest.raises(RunError, match=r"the part .*-000000' is damaged, .*'blip2cli verify'"):
        sink.close()
    sink.abort()
    assert listing(tmp_path) == {META, ".out.parquet.part-000000"}


def stopped(out: Path, *numbers: int) -> None:
    """An output whose run was stopped, each row in a part of its own."""
    sink = open_out(out)
    for number in numbers:
        put(sink, row(number))
    sink.abort()


def other_file(out: Path, *numbers: int) -> bytes:
    """Rows of somebody else in the place of the output."""
    sink = open_out(out.with_name("other.parquet"))
    sink.write([row(number, "of others") for number in numbers])
    sink.close()
    out.with_name("other.parquet").rename(out)
    return out.read_bytes()


def test_a_file_of_others_beside_parts_is_not_gone_on_with(out: Path) -> None:
    stopped(out, 0, 1)
    content = other_file(out, 0, 1, 2)
    with pytest.raises(OutputError, match="is not made of the hidden rows beside it"):
        journal_of(out)
    assert out.read_bytes() == content


@pytest.mark.parametrize("numbers", [(0,), (0, 1)])
def test_a_file_of_others_is_not_replaced_by_the_merge(
    out: Path, tmp_path: Path, numbers: tuple[int, ...]
) -> None:
    """Not even where it could be ours by the number of its rows."""
    stopped(out, 0, 1)
    content = other_file(out, *numbers)
    sink = appending(out)
    sink.write([row(2)])
    with pytest.raises(RunError, match=r"not made of them .* 3 rows are safe in hidden part"):
        sink.close()
    with pytest.raises((FileExistsError, OutputError)):
        journal_of(out).complete()
    assert out.read_bytes() == content
    assert len(listing(tmp_path)) == 6


def test_a_file_that_appears_while_the_run_goes_on_is_left(out: Path) -> None:
    sink = open_out(out)
    sink.write([row(0)])
    content = other_file(out, 0)
    with pytest.raises(RunError, match="1 rows are safe in hidden part files"):
        sink.close()
    assert out.read_bytes() == content


@pytest.mark.parametrize("links", [True, False])
def test_a_merge_that_a_crash_cut_short_is_done_again(
    out: Path, tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    sink = open_out(out)
    put(sink, row(0))
    sink.close()
    for before_the_rename in (True, False):
        sink = appending(out)
        sink.write([row(1)])
        with monkeypatch.context() as crash:
            crash.setattr(parquet, "remove_parts", lambda paths: None)
            if before_the_rename:
                crash.setattr(AtomicFile, "commit", no_links)
                with pytest.raises(RunError):
                    sink.close()
            else:
                sink.close()
        assert len(listing(tmp_path)) == 4
        journal_of(out).complete()
        assert listing(tmp_path) == {META, "out.parquet"}
        assert read(out)[-1] == row(1)
        out.unlink()
        sink = open_out(out)
        put(sink, row(0))
        sink.close()
