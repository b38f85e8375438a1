"""Whatever Arrow, DuckDB, pandas and Polars write into Parquet comes through a conversion."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.convert.helpers import NAMES, convert, draw, read_rows

DAY = dt.datetime(2024, 1, 2)
STORED = pa.ExtensionArray.from_storage
PAIR = pa.fixed_shape_tensor(pa.int32(), [2])
# A column by what it is, and its values in JSON.
COLUMNS: dict[str, tuple[Any, list[Any]]] = {
    "null": (pa.nulls(3), [None] * 3),
    "uint64": (pa.array([1, 2**63 + 5, None], pa.uint64()), [1, 2**63 + 5, None]),
    "float16": (pa.array(np.array([1, 2.5, np.nan], np.float16)), [1.0, 2.5, None]),
    "not finite": (pa.array([float("inf"), float("nan"), 0.5]), [None, None, 0.5]),
    "dictionary": (pa.array(["a", "b", None]).dictionary_encode(), ["a", "b", None]),
    "decimal": (pa.array([Decimal("9.90"), None, Decimal("-0.01")]), ["9.90", None, "-0.01"]),
    "time": (pa.array([DAY, None, DAY]), ["2024-01-02 00:00:00.000000", None, "2024-01-02 00:0"]),
    "zone": (
        pa.array([DAY, None, None], pa.timestamp("s", "Europe/Berlin")),
        ["2024-01-02 01:00:00.000+0100", None, None],
    ),
    "no zone": (
        pa.array([0, None, None], pa.timestamp("s", "Mars/Olympus")),
        ["1970-01-01 00:00:00.000Z", None, None],
    ),
    "date": (pa.array([dt.date(1, 1, 1), None, None]), ["0001-01-01", None, None]),
    "duration": (pa.array([-5, None, 86_400_000_000_000], pa.duration("ns")),
                 ["PT-0.000000005S", None, "PT86400.000000000S"]),
    "views": (pa.array(["a", None, "c" * 40], pa.string_view()), ["a", None, "c" * 40]),
    "list view": (pa.array([[1], None, [2]], pa.list_view(pa.int8())), [[1], None, [2]]),
    "map": (
        pa.array([[("a", 1)], None, []], pa.map_(pa.string(), pa.int64())),
        [[{"key": "a", "value": 1}], None, []],
    ),
    "nested": (
        pa.array([[{"d": Decimal("1.5"), "t": None}], None, []],
                 pa.list_(pa.struct([("d", pa.decimal128(4, 1)), ("t", pa.duration("s"))]))),
        [[{"d": "1.5", "t": None}], None, []],
    ),
    "uuid": (
        STORED(pa.uuid(), pa.array([b"0" * 16, None, b"1" * 16], pa.binary(16))),
        ["30303030-3030-3030-3030-303030303030", None, "31313131-3131-3131-3131-313131313131"],
    ),
    "json": (STORED(pa.json_(), pa.array(['{"a": 1}', None, "[]"])), ['{"a": 1}', None, "[]"]),
    "tensor": (
        STORED(PAIR, pa.array([[1, 2]] * 3, PAIR.storage_type)),
        [[1, 2]] * 3,
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", COLUMNS)
def test_every_type_comes_through(tmp_path: Path, kind: str) -> None:
    column, values = COLUMNS[kind]
    source = tmp_path / "in.parquet"
    texts = {"file_name": list(NAMES), "caption": ["x", "y", "z"]}
    pq.write_table(pa.table(texts | {"v": column}), source)
    images = str(draw(tmp_path / "images"))
    for name in ("o.csv", "o.parquet", "o.tar", "i.parquet", "back.parquet"):
        convert(
            source, tmp_path / name, image_root=images,
            write_as="image-parquet" if name == "i.parquet" else None,
        )  # fmt: skip
    convert(source, tmp_path / "o.jsonl")
    found = [row["v"] for row in read_rows(tmp_path / "o.jsonl")]
    assert found[:2] == values[:2]
    assert found[2] == values[2] or found[2].startswith(values[2])
    convert(tmp_path / "o.jsonl", tmp_path / "back2.parquet")


def test_columns_of_one_name_are_told_apart(tmp_path: Path) -> None:
    arrays = [pa.array(["a.jpg"]), pa.array([1]), pa.array([2]), pa.array([b"x"]), pa.array([3])]
    names = ["file_name", "n", "n", "b", "a.b"]
    pq.write_table(pa.Table.from_arrays(arrays, names), tmp_path / "in.parquet")
    done = convert(tmp_path / "in.parquet", tmp_path / "o.jsonl")
    assert read_rows(tmp_path / "o.jsonl") == [{"file_name": "a.jpg", "n": 1, "n_1": 2, "a.b": 3}]
    assert done.notes == ["Left out: b, which hold bytes."]


def test_numbers_of_several_files_are_widened(tmp_path: Path) -> None:
    columns = {
        "a": pa.array([2**62 + 1]),
        "b": pa.array([0.5], pa.float32()),
        "c": pa.array([7], pa.uint64()),
        "d": pa.array([2049], pa.int16()),
        "e": pa.array([1.5], pa.float16()),
        "f": pa.array(["x"]),
    }
    for name, column in columns.items():
        table = pa.table({"file_name": [name], "v": column, "w": pa.array([[column[0].as_py()]])})
        pq.write_table(table, tmp_path / f"{name}.parquet")

    def together(*names: str) -> list[Any]:
        out = tmp_path / f"{'-'.join(names)}.jsonl"
        convert(*(tmp_path / f"{name}.parquet" for name in names), out)
        return [row["v"] for row in read_rows(out)]

    assert together("d", "e") == [2049.0, 1.5]
    assert together("a", "b") == [float(2**62), 0.5]
    assert together("a", "c") == [str(2**62 + 1), "7"]
    assert together("c", "d", "f") == ["7", "2049", "x"]


def test_texts_of_other_types_are_written_as_text(tmp_path: Path) -> None:
    source = tmp_path / "in.parquet"
    pq.write_table(
        pa.table(
            {"file_name": list(NAMES), "caption": [1, None, 2], "t": ["a\u2028b", "c\u00a0d", ""]}
        ),
        source,
    )
    convert(source, tmp_path / "o.json", write_as="coco")
    assert [row["caption"] for row in json.loads((tmp_path / "o.json").read_bytes())] == ["1", "2"]
    convert(source, tmp_path / "s", write_as="sidecar", text_column="t")
    texts = sorted(path.read_text() for path in (tmp_path / "s").rglob("*.txt"))
    assert texts == ["a b\n", "c\u00a0d\n"]
