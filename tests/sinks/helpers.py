"""Rows and outputs for the tests of sinks."""

from __future__ import annotations

import gzip
import io
import json
from pathlib import Path
from typing import Any

from blip2cli.options import OutputOptions
from blip2cli.sinks import Column, ResumedOutput, Settings, Sink, open_sink, read_output

COLUMNS = (Column("caption", "string"), Column("logprob", "float"))
SETTINGS = Settings({"model": "tiny", "prompt": None})
FORMATS = ("jsonl", "jsonl.gz", "parquet")
FOLDER_SETTINGS = Settings({"model": "tiny", "prompt": None, "rows_per_part": 10}, token="5eed" * 8)


def row(number: int, caption: str | None = None, name: str | None = None) -> dict[str, Any]:
    """A complete caption row."""
    return {
        "file_name": f"{number:04d}.png" if name is None else name,
        "width": 10 + number,
        "height": 20,
        "caption": f"caption {number}" if caption is None else caption,
        "logprob": -number / 7,
    }


def open_out(path: Path, columns: tuple[Column, ...] = COLUMNS, **options: Any) -> Sink:
    """The sink for ``path``."""
    return open_sink(OutputOptions(str(path), **options), columns, SETTINGS, io.BytesIO())


def put(sink: Sink, *rows: dict[str, Any]) -> None:
    """Write the rows and commit them."""
    sink.write(rows)
    sink.commit()


def read(path: Path) -> list[dict[str, Any]]:
    """The rows of a finished file, as another program reads them."""
    if path.suffix == ".parquet":
        import pyarrow.parquet as pq

        rows: list[dict[str, Any]] = pq.read_table(path).to_pylist()
        return rows
    data = path.read_bytes()
    lines = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
    return [json.loads(line) for line in lines.split("\n")[:-1]]


def listing(folder: Path) -> set[str]:
    """All names in a folder, hidden ones too."""
    return {path.name for path in folder.iterdir()}


def resume(path: Path, per_image: int = 1, **options: Any) -> tuple[ResumedOutput | None, Sink]:
    """The journals of an output, and a sink that appends to it."""
    output = OutputOptions(str(path), resume=True, **options)
    resumed = read_output(output, lambda name: per_image)
    journal = resumed.rows if resumed else None
    return resumed, open_sink(output, COLUMNS, SETTINGS, None, journal)  # type: ignore[arg-type]


def names(*numbers: int) -> list[str]:
    return [f"{number:04d}.png" for number in numbers]
