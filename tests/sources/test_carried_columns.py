"""Columns of manifests and tables that are carried into the rows."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from blip2cli.errors import ImageError, OptionError
from blip2cli.options import SourceOptions
from blip2cli.sources import CarriedColumn, Listing, open_sources
from blip2cli.sources.base import FailedRef, ImageRef
from blip2cli.sources.carried_columns import with_columns
from blip2cli.sources.readers.manifest import open_source
from tests.sources.helpers import failure, refs, write_table

Tree = Callable[..., Path]


def test_columns_are_carried_along(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('path,id,note\na.png,007,"two\nlines"\nb.png,8,\n')
    options = SourceOptions((str(tmp_path / "m.csv"),), keep=("note", "id"))
    assert Listing.open(options, io.BytesIO()).columns == (
        CarriedColumn("note", "string"),
        CarriedColumn("id", "string"),
        CarriedColumn("occurrence", "int"),
    )
    carried = [ref.carried for ref in open_sources(options)]
    assert carried == [("two\nlines", "007", 1), ("", "8", 1)]


def test_types_of_json_come_from_its_values(tmp_path: Path) -> None:
    lines = [
        {"path": "a", "i": 1, "f": 1, "s": "x", "mixed": 1, "b": True, "l": [1, "é"], "big": 1},
        {"path": "b", "i": None, "f": 2.5, "s": None, "mixed": "y", "o": {"k": None}},
        {"path": "../c", "i": 3, "big": 1 << 70},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    keep = ("i", "f", "s", "mixed", "b", "l", "o", "big")
    options = SourceOptions((str(tmp_path / "m.jsonl"),), keep=keep)
    types = [column.type for column in Listing.open(options, io.BytesIO()).columns]
    assert types == ["int", "float", *["string"] * 6, "int"]
    found = [ref.carried[:-1] for ref in open_sources(options)]
    assert found[0] == (1, 1.0, "x", "1", "true", '[1, "é"]', None, "1")
    assert found[1] == (None, 2.5, None, "y", None, None, '{"k": null}', None)
    assert found[2] == (3, None, None, None, None, None, None, str(1 << 70))  # a failure as well


def test_types_of_parquet_come_from_its_schema(tmp_path: Path) -> None:
    table = write_table(
        tmp_path / "m.parquet",
        path=["a", "b"],
        i=pa.array([1, None], pa.int8()),
        f=pa.array([1.5, None], pa.float32()),
        when=pa.array([0, None], pa.date32()),
        tags=[["x"], None],
        raw=[b"x", None],
    )
    options = SourceOptions((str(table),), keep=("tags", "f", "i", "when"))
    assert [c.type for c in Listing.open(options, io.BytesIO()).columns] == [
        "string",
        "float",
        "int",
        "string",
        "int",
    ]
    carried = [ref.carried[:-1] for ref in open_sources(options)]
    assert carried == [('["x"]', 1.5, 1, "1970-01-01"), (None,) * 4]
    with pytest.raises(OptionError, match="keep raw: this column holds bytes"):
        refs(table, keep=("raw",))


def test_types_widen_over_all_values(tmp_path: Path) -> None:
    lines = [f'{{"path": "{n}.png", "i": {n}, "f": {n}, "s": {n}}}' for n in range(1500)]
    lines.append('{"path": "last.png", "i": 7.0, "f": 0.5, "s": "many"}')
    (tmp_path / "m.jsonl").write_text("\n".join(lines))
    options = SourceOptions((str(tmp_path / "m.jsonl"),), keep=("i", "f", "s"))
    types = [column.type for column in Listing.open(options).columns]
    assert types == ["float", "float", "string", "int"]
    assert list(open_sources(options))[-1].carried == (7.0, 0.5, "many", 1)


def sampled(file: Path, rows: int, *keep: str) -> list[ImageRef]:
    """The images of a manifest whose types come from its first ``rows`` rows."""
    source = open_source(str(file), SourceOptions((str(file),), keep=keep), sampled_rows=rows)
    return list(with_columns(source.refs(source.root), source.carried_columns()))


def test_a_value_that_does_not_fit_its_type_is_a_failure(tmp_path: Path) -> None:
    values = ["1", "2.0", "NaN", "true", "1.5", '"many"', str(1 << 64), "Infinity", "3"]
    lines = [f'{{"path": "{n}.png", "n": {value}}}\n' for n, value in enumerate(values)]
    (tmp_path / "m.jsonl").write_text("".join(lines))
    found = sampled(tmp_path / "m.jsonl", 1, "n")
    assert [ref.carried[0] for ref in found] == [1, 2, None, *[None] * 5, 3]
    assert [isinstance(ref, FailedRef) for ref in found] == [False] * 3 + [True] * 5 + [False]
    assert failure(found[5]) == "bad_metadata"
    with pytest.raises(ImageError, match=r"keep n: 'many' is not a whole number"):
        found[5].read()


def test_a_value_of_any_size_costs_one_entry(tmp_path: Path) -> None:
    deep = "[" * 900 + "]" * 900
    values = ["1", "2", deep, '"' + "x" * (1 << 21) + '"', "1" * 400, "-1e400", "3"]
    lines = [f'{{"path": "{n}.png", "n": {v}, "s": {v}}}\n' for n, v in enumerate(values)]
    (tmp_path / "m.jsonl").write_text('{"path": "first", "s": "x"}\n' + "".join(lines))
    found = sampled(tmp_path / "m.jsonl", 2, "n", "s")
    failed = [ref.file_name for ref in found if isinstance(ref, FailedRef)]
    assert [ref.file_name for ref in found][1:] == [f"{n}.png" for n in range(len(values))]
    assert failed == [f"{n}.png" for n in (2, 3, 4, 5)]
    assert all(len(ref.message) < 300 for ref in found if isinstance(ref, FailedRef))


def test_deep_and_odd_json_is_carried_as_text(tmp_path: Path) -> None:
    deep = "[" * 500 + "]" * 500
    values = [deep, '{"a": NaN}', "[1e400]", '"\\ud83d\\ude00"', '"\\udce9"']
    lines = [f'{{"path": "{n}.png", "n": {value}}}\n' for n, value in enumerate(values)]
    (tmp_path / "m.jsonl").write_text("".join(lines))
    carried = [ref.carried[0] for ref in refs(tmp_path / "m.jsonl", keep=("n",))]
    assert carried == [deep, '{"a": null}', "[null]", "😀", "\udce9"]


def test_everything_that_arrow_writes_is_carried(tmp_path: Path) -> None:
    columns: dict[str, tuple[object, object]] = {
        "ns": (pa.array([1], pa.timestamp("ns")), "1970-01-01 00:00:00.000000001"),
        "far": (pa.array([1 << 62], pa.timestamp("ms")), None),
        "zone": (pa.array([0], pa.timestamp("us", "Nowhere/Land")), "1970-01-01 00:00:00.000000Z"),
        "date": (pa.array([1 << 30], pa.date32()), None),
        "time": (pa.array([1], pa.time64("ns")), "00:00:00.000000001"),
        "duration": (pa.array([1 << 60], pa.duration("s")), str(1 << 60)),
        "decimal": (pa.array([Decimal("1.50")]), "1.50"),
        "half": (pa.array([np.float16(1.5)]), 1.5),
        "unsigned": (pa.array([(1 << 63) + 5], pa.uint64()), str((1 << 63) + 5)),
        "category": (pa.array(["a"]).dictionary_encode(), "a"),
        "large": (pa.array(["a"], pa.large_string()), "a"),
        "view": (pa.array(["a"], pa.string_view()), "a"),
        "map": (pa.array([[("a", 1)]], pa.map_(pa.string(), pa.int64())), '[["a", 1]]'),
        "nulls": (pa.nulls(1), None),
        "times": (pa.array([[1]], pa.list_(pa.timestamp("us"))), '["1970-01-01 00:00:00.000001"]'),
        "nested": (pa.array([{"a": {"b": [float("nan")]}}]), '{"a": {"b": [null]}}'),
        "fixed": (pa.array([[1, 2]], pa.list_(pa.int64(), 2)), "[1, 2]"),
        "truth": (pa.array([True]), "true"),
        "nan": (pa.array([float("nan")]), None),
    }
    arrays = {name: values for name, (values, _) in columns.items()}
    table = write_table(tmp_path / "m.parquet", path=["a.png"], **arrays)
    (found,) = refs(table, keep=tuple(columns))
    carried = dict(zip(columns, found.carried[:-1], strict=True))
    for name in ("far", "date"):
        assert "out of range" in str(carried.pop(name))
    assert carried == {name: value for name, (_, value) in columns.items() if name in carried}


def test_a_column_that_a_later_shard_lacks_is_null_there(tmp_path: Path) -> None:
    write_table(tmp_path / "0.parquet", path=["a"], n=[1], m=["x"])
    write_table(tmp_path / "1.parquet", path=["b"], m=["y"])
    write_table(tmp_path / "2.parquet", image=[b"c"])
    found = refs(f"{tmp_path}/*.parquet", keep=("n", "m"))
    assert [ref.carried for ref in found] == [(1, "x", 1), (None, "y", 1), (None, None, 1)]
    assert found[2].read() == b"c"
    with pytest.raises(OptionError, match="keep o: "):
        refs(f"{tmp_path}/*.parquet", keep=("o",))


def test_shards_agree_on_a_type(tmp_path: Path) -> None:
    write_table(tmp_path / "0.parquet", path=["a"], n=[1], m=[1])
    write_table(tmp_path / "1.parquet", path=["b"], n=[1.5], m=["x"])
    (tmp_path / "2.parquet").write_bytes(b"PAR1")
    options = SourceOptions((f"{tmp_path}/*.parquet",), keep=("n", "m"))
    types = [column.type for column in Listing.open(options).columns]
    assert types == ["float", "string", "int"]
    found = list(open_sources(options))
    assert [ref.carried for ref in found] == [(1.0, "1", 1), (1.5, "x", 1), (None, None, 1)]


def test_several_sources_agree_on_a_type(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text('{"path": "a", "n": 1, "m": 1}\n')
    (tmp_path / "2.jsonl").write_text('{"path": "b", "n": 0.5, "m": "x"}\n')
    sources = (str(tmp_path / "1.jsonl"), str(tmp_path / "2.jsonl"))
    options = SourceOptions(sources, keep=("n", "m"))
    assert [c.type for c in Listing.open(options).columns] == ["float", "string", "int"]
    assert [ref.carried for ref in open_sources(options)] == [(1.0, "1", 1), (0.5, "x", 1)]


def test_only_rows_of_manifests_are_numbered(tmp_path: Path) -> None:
    write_table(tmp_path / "1.parquet", image=[b"a"], n=[1])
    (tmp_path / "m.csv").write_text("path,n\na.png,1\n")
    tables = str(tmp_path / "1.parquet"), f"{tmp_path}/*.parquet"
    for source in tables:
        assert [ref.carried for ref in refs(source, keep=("n",))] == [(1,)]
    for both in ((tables[0], tmp_path / "m.csv"), (tmp_path / "m.csv", tables[1])):
        assert [ref.carried[1:] for ref in refs(*both, keep=("n",))] == [(1,), (1,)]


def test_columns_that_cannot_be_carried(tree: Tree) -> None:
    root = tree("a.png")
    (root / "m.csv").write_text("path,id\na.png,1\n")
    (root / "m.jsonl").write_text('{"path": "a.png", "id": 1}\n')
    (root / "m.txt").write_text("a.png\n")
    for source in ("m.csv", "m.jsonl"):
        with pytest.raises(OptionError, match=r"keep size: .* it has path, id"):
            refs(root / source, keep=("size",))
    with pytest.raises(OptionError, match="plain list of paths"):
        refs(root / "m.txt", keep=("id",))
    for other in (root, root / "a.png", f"{root}/*.png"):
        with pytest.raises(OptionError, match="has no columns"):
            refs(root / "m.csv", other, keep=("id",))
        with pytest.raises(OptionError, match="has no columns"):
            Listing.open(SourceOptions((str(other),), keep=("id",)))
    with pytest.raises(OptionError, match="has no columns"):
        Listing.open(SourceOptions(("-",), keep=("id",)), io.BytesIO())
    with pytest.raises(OptionError, match="keep id is given twice"):
        refs(root / "m.csv", keep=("id", "id"))
