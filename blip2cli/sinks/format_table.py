"""The table of output formats.

A new format is an entry here, a writer of rows, and a reader of the rows that an output holds
already. Both are imported when they are used: pyarrow takes a while.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from blip2cli.sinks.base import RowSchema, Sink
    from blip2cli.sinks.journal import Journal, RowCount
    from blip2cli.sinks.paths import OutputPaths
    from blip2cli.sinks.settings import Settings


@dataclass(frozen=True)
class OutputFormat:
    """One format of outputs."""

    name: str
    suffixes: tuple[str, ...]  # of its files
    writer: str  # MODULE.NAME in this package: (paths, schema, settings, journal=) -> Sink
    journal: str  # likewise: (paths, row_count, inline_errors) -> Journal, None without an output
    retypes: bool = False  # a column can become text: all rows are written anew at the end

    def open_writer(
        self, paths: OutputPaths, schema: RowSchema, settings: Settings, journal: Journal | None
    ) -> Sink:
        """The writer of an output; ``journal`` is that of the output to append to."""
        sink: Sink = _load(self.writer)(paths, schema, settings, journal=journal)
        return sink

    def read_journal(
        self, paths: OutputPaths, row_count: RowCount, inline_errors: bool
    ) -> Journal | None:
        """The journal of an output; None without an output. Raises OutputError, OSError."""
        journal: Journal | None = _load(self.journal)(paths, row_count, inline_errors)
        return journal


def _load(name: str) -> Any:
    module, _, attribute = name.partition(".")
    return getattr(importlib.import_module(f"blip2cli.sinks.{module}"), attribute)


FORMATS = (
    OutputFormat(
        "JSON Lines", (".jsonl", ".jsonl.gz"), "jsonl.JsonlSink", "jsonl_journal.read_journal"
    ),
    OutputFormat(
        "Parquet",
        (".parquet",),
        "parquet.ParquetSink",
        "parquet_journal.read_journal",
        retypes=True,
    ),
)


def suffixes() -> tuple[str, ...]:
    """Those of all formats."""
    return tuple(suffix for format_ in FORMATS for suffix in format_.suffixes)


def known_suffix(out: str) -> str | None:
    """The known suffix that ``out`` ends in, in upper or lower case; the longest that fits."""
    fitting = [suffix for suffix in suffixes() if out.lower().endswith(suffix)]
    return max(fitting, key=len, default=None)


def format_of(out: str) -> OutputFormat:
    """The format of an output whose suffix is known (see ``check_output``)."""
    suffix = known_suffix(out)
    return next(format_ for format_ in FORMATS if suffix in format_.suffixes)
