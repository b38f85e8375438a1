from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from blip2cli.errors import RunError
from blip2cli.sinks import Column, parquet, row_groups
from blip2cli.sinks.base import IDENTITY, RowSchema
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings_file import METADATA_KEY
from tests.sinks.helpers import COLUMNS, SETTINGS, listing, open_out, put, read, row

SCHEMA = RowSchema((*IDENTITY, *COLUMNS))
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


def test_parts_are_committed_by_size(out: Path, tmp_path: Path) -> None:
    sink = parquet.ParquetSink(OutputPaths.of(str(out)), SCHEMA, SETTINGS, part_bytes=500)
    for number in range(100):
        sink.write([row(number)])
    assert 2 < len(listing(tmp_path)) < 50
    sink.close()
    assert read(out) == [row(n) for n in range(100)]


def test_parts_are_committed_by_age(
    out: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    sink = open_out(out)
    for number in range(100):
        sink.write([row(number)])
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
def test_row_groups_do_not_depend_on_the_parts(out: Path, pieces: tuple[int, ...]) -> None:
    sink = open_out(out)
    start = 0
    for size in pieces:
        sink.write([row(n) for n in range(start, start + size)])
        sink.commit()
        start += size
    paths = OutputPaths.of(str(out))
    parquet.merge(paths, paths.parts(), row_groups.arrow_schema(SCHEMA, SETTINGS), rows=7)
    with pq.ParquetFile(out) as file:
        groups = [file.metadata.row_group(i).num_rows for i in range(file.metadata.num_row_groups)]
    assert groups == [7, 7, 6]
    assert read(out) == [row(n) for n in range(20)]


def test_row_groups_of_large_embeddings_are_bounded() -> None:
    schema = RowSchema.of((Column("e", "embedding", 32 * 768),), inline_errors=False)
    rows = row_groups.group_rows(row_groups.arrow_schema(schema, SETTINGS))
    assert rows * 4 * 32 * 768 <= row_groups.GROUP_BYTES
    assert rows > 100


def test_an_aborted_run_commits_what_it_has(out: Path, tmp_path: Path) -> None:
    sink = open_out(out)
    sink.write([row(0)])
    sink.abort()
    assert listing(tmp_path) == {META, ".out.parquet.part-000000"}


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
