from __future__ import annotations

import json
import os
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from blip2cli.errors import OutputError, RunError
from blip2cli.sinks import Column, parquet, row_groups
from blip2cli.sinks.base import ColumnType, RowSchema
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings_file import METADATA_KEY
from blip2cli.storage import durable
from blip2cli.storage.atomic import AtomicFile
from tests.sinks.helpers import SETTINGS, listing, open_out, put, read, row
from tests.sinks.test_damage import appending, journal_of
from tests.storage.test_durable import no_links

META = ".out.parquet.meta.json"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    return tmp_path / "out.parquet"


def test_bytes_do_not_tell_where_parts_ended(tmp_path: Path) -> None:
    """Pages of vectors are many in a row group, and would end where parts did."""
    columns = (Column("embedding", "embedding", 256),)
    numbers = np.random.default_rng(0).random((3000, 256), dtype=np.float32)
    common = {"width": 1, "height": 2}
    rows = [common | {"file_name": f"{i}", "embedding": v} for i, v in enumerate(numbers)]
    written = []
    for part in (3000, 701):
        sink = open_out(tmp_path / f"{part}.parquet", columns)
        for start in range(0, len(rows), part):
            sink.write(rows[start : start + part])
            sink.commit()
        sink.close()
        written.append((tmp_path / f"{part}.parquet").read_bytes())
    assert written[0] == written[1]


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


def test_types(out: Path) -> None:
    columns = (
        Column("embedding", "embedding", 4),
        Column("kind", "string"),
        Column("count", "int"),
        Column("candidates", "texts"),
        Column("probabilities", "choices"),
    )
    common = {"file_name": "a", "width": 1, "height": 2, "kind": "image", "count": 3}
    vector = torch.tensor([0.1, -2.5, 3e-30, 7.0])
    sink = open_out(out, columns)
    sink.write(
        [
            common
            | {
                "embedding": vector,
                "candidates": [{"text": "é", "logprob": -0.125}],
                "probabilities": [],
            },
            common | {"embedding": None, "candidates": None, "probabilities": None},
        ]
    )
    sink.close()
    table = pq.read_table(out)
    texts = pa.struct([("text", pa.string()), ("logprob", pa.float64())])
    choices = pa.struct([("choice", pa.string()), ("probability", pa.float64())])
    assert table.schema.field("embedding").type == pa.list_(pa.float32(), 4)
    assert table.schema.field("width").type == pa.int64()
    assert table.schema.field("candidates").type == pa.list_(texts)
    assert table.schema.field("probabilities").type == pa.list_(choices)
    assert np.array_equal(np.array(table["embedding"][0].as_py(), np.float32), vector.numpy())
    assert table["embedding"][1].as_py() is None
    assert table["candidates"].to_pylist() == [[{"text": "é", "logprob": -0.125}], None]
    assert table["probabilities"].to_pylist() == [[], None]


def test_settings_are_in_the_metadata(out: Path) -> None:
    sink = open_out(out)
    sink.write([row(0)])
    sink.close()
    metadata = pq.read_schema(out).metadata
    assert json.loads(metadata[METADATA_KEY])["settings"] == SETTINGS.rows


def test_the_output_is_absent_until_it_is_complete(out: Path, tmp_path: Path) -> None:
    sink = open_out(out)
    for number in range(3):
        sink.write([row(number)])
        sink.commit()
        sink.commit()  # nothing new: no part
    assert listing(tmp_path) == {META, *(f".out.parquet.part-{n:06d}" for n in range(3))}
    for number, path in enumerate(OutputPaths.of(str(out)).parts()):
        assert pq.read_table(path).to_pylist() == [row(number)]
    sink.close()
    assert listing(tmp_path) == {META, "out.parquet"}
    assert read(out) == [row(n) for n in range(3)]


def test_overwriting_keeps_the_old_output_to_the_end(out: Path, tmp_path: Path) -> None:
    first = open_out(out)
    first.write([row(9)])
    first.close()
    (tmp_path / ".out.parquet.part-000005").touch()  # of a run that was given up
    sink = open_out(out, overwrite=True)
    sink.write([row(1)])
    sink.commit()
    assert read(out) == [row(9)]
    assert listing(tmp_path) == {META, "out.parquet", ".out.parquet.part-000000"}
    sink.close()
    assert read(out) == [row(1)]
    assert listing(tmp_path) == {META, "out.parquet"}


def test_parts_are_committed_by_size_and_age(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_groups, "PART_BYTES", 500)
    sink = open_out(out)
    for number in range(100):
        sink.write([row(number)])
    assert 2 < len(listing(tmp_path)) < 50

    monkeypatch.setattr(row_groups, "PART_BYTES", 1 << 30)
    now = row_groups.time.monotonic() + 1000
    monkeypatch.setattr(row_groups.time, "monotonic", lambda: now)
    sink.commit()
    before = len(listing(tmp_path))
    sink.write([row(100)])
    assert len(listing(tmp_path)) == before
    now += row_groups.PART_SECONDS
    sink.write([row(101)])
    assert len(listing(tmp_path)) == before + 1
    monkeypatch.undo()
    sink.close()
    assert read(out) == [row(n) for n in range(102)]


@pytest.mark.parametrize("pieces", [(20,), (1,) * 20, (7, 7, 6), (3, 14, 3)])
def test_row_groups_do_not_depend_on_the_parts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, pieces: tuple[int, ...]
) -> None:
    monkeypatch.setattr(row_groups, "GROUP_ROWS", 7)
    out = tmp_path / "out.parquet"
    sink = open_out(out)
    start = 0
    for size in pieces:
        sink.write([row(n) for n in range(start, start + size)])
        sink.commit()
        start += size
    sink.close()
    with pq.ParquetFile(out) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    assert groups == [7, 7, 6]
    assert read(out) == [row(n) for n in range(20)]


def test_row_groups_of_large_embeddings_are_bounded() -> None:
    schema = RowSchema.of((Column("e", "embedding", 32 * 768),), inline_errors=False)
    rows = row_groups.group_rows(row_groups.arrow_schema(schema, SETTINGS))
    assert rows * 4 * 32 * 768 <= row_groups.GROUP_BYTES
    assert rows > 100


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


def test_an_aborted_run_commits_what_it_has(out: Path, tmp_path: Path) -> None:
    sink = open_out(out)
    sink.write([row(0)])
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


def test_a_part_that_is_taken_away_ends_the_run(out: Path) -> None:
    sink = open_out(out)
    put(sink, row(0))
    put(sink, row(1))
    (out.parent / ".out.parquet.part-000000").unlink()
    sink.write([row(2)])
    with pytest.raises(RunError, match=r"part-000000', which holds .* was moved or deleted"):
        sink.commit()
    sink.abort()
    assert listing(out.parent) == {META, ".out.parquet.part-000001"}


def test_two_runs_do_not_write_the_same_part(out: Path) -> None:
    one, two = open_out(out), open_out(out)
    for sink in (one, two):
        sink.write([row(0)])
    one.commit()
    with pytest.raises(RunError, match="hidden rows of another run are beside it"):
        two.commit()
    assert pq.read_table(out.parent / ".out.parquet.part-000000").to_pylist() == [row(0)]
