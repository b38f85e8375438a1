"""Columns of manifests and tables that are carried into the rows."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pytest

from blip2cli.errors import OptionError, SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import CarriedColumn, carried_columns, open_sources
from tests.sources.helpers import refs, write_table

Tree = Callable[..., Path]


def test_columns_are_carried_along(tmp_path: Path) -> None:
    (tmp_path / "m.csv").write_text('path,id,note\na.png,007,"two\nlines"\nb.png,8,\n')
    options = SourceOptions((str(tmp_path / "m.csv"),), keep=("note", "id"))
    assert carried_columns(options) == (
        CarriedColumn("note", "string"),
        CarriedColumn("id", "string"),
    )
    assert [ref.carried for ref in open_sources(options)] == [("two\nlines", "007"), ("", "8")]


def test_types_of_json_come_from_its_values(tmp_path: Path) -> None:
    lines = [
        {"path": "a", "i": 1, "f": 1, "s": "x", "mixed": 1, "b": True, "l": [1, "é"], "big": 1},
        {"path": "b", "i": None, "f": 2.5, "s": None, "mixed": "y", "o": {"k": None}},
        {"path": "../c", "i": 3, "big": 1 << 70},
    ]
    (tmp_path / "m.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    keep = ("i", "f", "s", "mixed", "b", "l", "o", "big")
    options = SourceOptions((str(tmp_path / "m.jsonl"),), keep=keep)
    types = [column.type for column in carried_columns(options)]
    assert types == ["int", "float", *["string"] * 6]
    found = [ref.carried for ref in open_sources(options)]
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
    assert [c.type for c in carried_columns(options)] == ["string", "float", "int", "string"]
    carried = [ref.carried for ref in open_sources(options)]
    assert carried == [('["x"]', 1.5, 1, "1970-01-01"), (None,) * 4]
    with pytest.raises(OptionError, match="keep raw: this column holds bytes"):
        refs(table, keep=("raw",))


def test_a_value_that_does_not_fit_the_inferred_type(tmp_path: Path) -> None:
    lines = [f'{{"path": "{n}.png", "n": {n}}}' for n in range(1500)]
    (tmp_path / "m.jsonl").write_text("\n".join([*lines, '{"path": "last.png", "n": "many"}']))
    images = open_sources(SourceOptions((str(tmp_path / "m.jsonl"),), keep=("n",)))
    with pytest.raises(SourceError, match=r"keep n: 'last.png' has \"many\" .* whole numbers"):
        list(images)


def test_several_sources_agree_on_a_type(tmp_path: Path) -> None:
    (tmp_path / "1.jsonl").write_text('{"path": "a", "n": 1, "m": 1}\n')
    (tmp_path / "2.jsonl").write_text('{"path": "b", "n": 0.5, "m": "x"}\n')
    sources = (str(tmp_path / "1.jsonl"), str(tmp_path / "2.jsonl"))
    options = SourceOptions(sources, keep=("n", "m"))
    assert [column.type for column in carried_columns(options)] == ["float", "string"]
    assert [ref.carried for ref in open_sources(options)] == [(1.0, "1"), (0.5, "x")]


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
            carried_columns(SourceOptions((str(other),), keep=("id",)))
    with pytest.raises(OptionError, match="has no columns"):
        carried_columns(SourceOptions(("-",), keep=("id",)))
    with pytest.raises(OptionError, match="keep id is given twice"):
        refs(root / "m.csv", keep=("id", "id"))
