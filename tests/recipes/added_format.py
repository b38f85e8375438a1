"""A format of conversions: a module with ``open_writer``, and a line in the table of formats."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pyarrow as pa

from blip2cli.convert import format_table
from blip2cli.convert.base import Reader
from tests.recipes.register import put_module, run_command


class MarkdownWriter:
    """Writes a list with a line for each row."""

    def __init__(self, options: Any, reader: Reader) -> None:
        self.notes: list[str] = []
        self._path = Path(options.destination)
        self._lines: list[str] = []

    def write(self, batch: pa.RecordBatch) -> None:
        self._lines += [f"- {row['file_name']}: {row['caption']}\n" for row in batch.to_pylist()]

    def finish(self) -> None:
        self._path.write_text("".join(self._lines))

    def abort(self) -> None:
        self._lines.clear()


open_writer = MarkdownWriter

if __name__ == "__main__":
    put_module("blip2cli.convert.formats.markdown")
    format_table.FORMATS["markdown"] = format_table.Format(
        "markdown", "a list in Markdown", "markdown", (".md",), readable=False
    )
    run_command()
