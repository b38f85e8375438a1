"""The table of output formats.

A new format is an entry here, a writer of rows, and a reader of the rows that an output holds
already. Both are imported when they are used: pyarrow takes a while.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class OutputFormat:
    """One format of outputs."""

    name: str
    suffixes: tuple[str, ...]  # of its files
    writer: str  # MODULE.NAME in this package: (paths, schema, settings, journal) -> Sink
    journal: str  # likewise: (paths, row_count, inline_errors) -> Journal, None without an output
    retypes: bool = False  # a column can become text: all rows are written anew at the end

    @staticmethod
    def load(name: str) -> Any:
        """The callable behind ``writer`` or ``journal``."""
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
    return tuple(suffix for one in FORMATS for suffix in one.suffixes)


def known_suffix(out: str) -> str | None:
    """The known suffix that ``out`` ends in, in upper or lower case; the longest that fits."""
    fitting = [suffix for suffix in suffixes() if out.lower().endswith(suffix)]
    return max(fitting, key=len, default=None)


def format_of(out: str) -> OutputFormat:
    """The format of an output whose suffix is known (see ``check_output``)."""
    suffix = known_suffix(out)
    return next(one for one in FORMATS if suffix in one.suffixes)
