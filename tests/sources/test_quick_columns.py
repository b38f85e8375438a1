"""Names of columns from the beginning of a table, as its own reader has them."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.sources.quick_columns import quick_columns

NAMES = ["file_name", "alt", "price in €"]


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("a.csv", "file_name,alt,price in €\nx.png,a,1\n"),
        ("a.tsv", "\ufefffile_name\talt\tprice in €\n"),
        ("b.csv", 'sep=;\n"file_name";alt;price in €\n'),
        ("a.jsonl", '{"file_name": "x", "alt": 1}\nbroken\n{"price in €": 2}\n'),
        ("a.errors", '{"file_name": "x", "alt": 1, "price in €": null}\n'),
        ("a.json", '[{"file_name": "x", "alt": 1}, {"price in €": 2}]'),
        ("coco.json", '{"info": {}, "images": [{"file_name": 1, "alt": 2, "price in €": 3}]}'),
    ],
)
def test_columns_of_texts(name: str, text: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text(text, encoding="utf-8")
    assert quick_columns(str(tmp_path / name)) == NAMES
    with gzip.open(tmp_path / f"{name}.gz", "wt", encoding="utf-8") as file:
        file.write(text)
    if not name.endswith(".errors"):
        assert quick_columns(str(tmp_path / f"{name}.gz")) == NAMES


SCHEMAS = [
    pa.schema([]),
    pa.schema([(name, pa.string()) for name in NAMES]),
    pa.schema([(f"column {n}", pa.int32()) for n in range(300)]),
    pa.schema(
        [
            ("a", pa.list_(pa.struct([("x", pa.float16()), ("y", pa.list_(pa.bool_()))]))),
            ("image", pa.struct([("bytes", pa.binary()), ("path", pa.string())])),
            ("when", pa.timestamp("us", "UTC")),
            ("price", pa.decimal128(10, 2)),
            ("tags", pa.map_(pa.string(), pa.list_(pa.int8()))),
            ("vector", pa.list_(pa.float32(), 4)),
            ("last", pa.dictionary(pa.int8(), pa.string())),
        ]
    ),
]


@pytest.mark.parametrize("schema", SCHEMAS, ids=lambda schema: str(len(schema)))
@pytest.mark.parametrize("version", ["1.0", "2.6"])
def test_columns_of_parquet(schema: pa.Schema, version: str, tmp_path: Path) -> None:
    path = tmp_path / "part-00000.parquet"
    pq.write_table(schema.empty_table(), path, version=version)
    assert quick_columns(str(path)) == pq.read_schema(path).names == schema.names
    assert quick_columns(str(tmp_path)) == schema.names


@pytest.mark.parametrize(
    ("name", "data"),
    [
        ("a.parquet", b""),
        ("a.parquet", b"PAR1" * 5),
        ("b.parquet", b"no table at all, but long enough"),
        ("c.parquet", b"\xff" * 40 + (40).to_bytes(4, "little") + b"PAR1"),
        ("d.parquet", b"\x15" * 40 + (40).to_bytes(4, "little") + b"PAR1"),
    ],
)
def test_no_table_has_no_columns(name: str, data: bytes, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises((ValueError, OSError)):
        quick_columns(str(tmp_path / name))


def test_other_files_have_none(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_text("a.png\n")
    assert quick_columns(str(tmp_path / "a.txt")) == []
    assert quick_columns(str(tmp_path)) == []
    assert quick_columns("s3://bucket/a.csv") == []
    assert quick_columns(str(tmp_path / "none.csv")) == []


def test_no_large_library_is_imported_for_texts(tmp_path: Path) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(dict.fromkeys(NAMES)) + "\n")
    code = (
        "import sys\n"
        "from blip2cli.sources.quick_columns import quick_columns\n"
        "assert quick_columns('a.jsonl')\n"
        "print({'numpy', 'pyarrow', 'fsspec', 'torch'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert done.stdout == "set()\n"
