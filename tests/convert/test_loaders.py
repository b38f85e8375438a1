"""Outputs load in pandas, Polars, DuckDB, Arrow and datasets, whatever their first rows hold."""

from __future__ import annotations

from pathlib import Path

import pytest

from blip2cli.options import OutputOptions
from blip2cli.sinks import Column, open_sink
from tests.convert.helpers import convert, in_subprocess
from tests.sinks.helpers import SETTINGS

LOAD = """
import os, duckdb, pandas, polars, pyarrow.csv, pyarrow.json, pyarrow.parquet
from datasets import load_dataset
path, cache = sys.argv[1:]
kind = path.rpartition(".")[2]
rows = {
    "pandas": {"jsonl": lambda: pandas.read_json(path, lines=True),
               "csv": lambda: pandas.read_csv(path),
               "parquet": lambda: pandas.read_parquet(path)},
    "polars": {"jsonl": lambda: polars.read_ndjson(path), "csv": lambda: polars.read_csv(path),
               "parquet": lambda: polars.read_parquet(path)},
    "arrow": {"jsonl": lambda: pyarrow.json.read_json(path).to_pylist(),
              "csv": lambda: pyarrow.csv.read_csv(path, parse_options=pyarrow.csv.ParseOptions(
                  newlines_in_values=True)).to_pylist(),
              "parquet": lambda: pyarrow.parquet.read_table(path).to_pylist()},
    "duckdb": {kind: lambda: duckdb.sql(f"from '{path}'").fetchall()},
    "datasets": {kind: lambda: load_dataset(
        {"jsonl": "json"}.get(kind, kind), data_files=path, cache_dir=cache, split="train")},
}
found = {}
for tool, ways in rows.items():
    try:
        found[tool] = len(ways[kind]())
    except Exception as error:
        found[tool] = f"{type(error).__name__}: {error}"[:200]
print(json.dumps(found))
"""
NAMES = (
    "caf\udce9.png",
    'a "quoted"\nname.png',
    "line\u2028separator.png",
    "=1+1.png",
    "\\udce9.png",
)


@pytest.mark.parametrize("suffix", ["jsonl", "csv", "parquet"])
def test_outputs_with_failures_among_the_rows_and_any_names_load(
    tmp_path: Path, suffix: str
) -> None:
    out = tmp_path / f"out.{'jsonl' if suffix == 'csv' else suffix}"
    columns = (Column("caption", "string"), Column("logprob", "float"))
    options = OutputOptions(str(out), errors="inline")
    sink = open_sink(options, columns, SETTINGS, None)  # type: ignore[arg-type]
    for number in range(300):
        good = number % 3 != 2 or number < 150
        sink.write(
            [
                {
                    "file_name": f"{number}{NAMES[number % len(NAMES)]}",
                    "width": 4 if good else None,
                    "height": 4 if good else None,
                    "caption": "a red\ncat" if good else None,
                    "logprob": -0.5 if good else None,
                    "error": "" if good else "truncated: The file ends early.",
                }
            ]
        )
    sink.close()
    if suffix == "csv":
        convert(out, tmp_path / "out.csv")
    found = in_subprocess(LOAD, tmp_path / f"out.{suffix}", tmp_path / "cache")
    assert found == dict.fromkeys(found, 300)
