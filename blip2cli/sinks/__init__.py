"""Where rows go: one writer a file, chosen by the suffix of the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import BinaryIO, TextIO

from blip2cli.options import OutputOptions
from blip2cli.sinks.base import Column, RowSchema, Sink
from blip2cli.sinks.errors import ErrorFile, ErrorLines, ErrorSink, NoErrors
from blip2cli.sinks.jsonl import JsonlSink
from blip2cli.sinks.paths import OutputPaths, check_output, known_suffix, to_stdout
from blip2cli.sinks.stdout import StdoutSink

__all__ = [
    "Column",
    "ErrorSink",
    "RowSchema",
    "Sink",
    "check_output",
    "open_errors",
    "open_sink",
]

_Settings = Mapping[str, object]


def _jsonl(paths: OutputPaths, schema: RowSchema, settings: _Settings) -> Sink:
    return JsonlSink(paths, schema, settings, compress=False)


def _jsonl_gz(paths: OutputPaths, schema: RowSchema, settings: _Settings) -> Sink:
    return JsonlSink(paths, schema, settings, compress=True)


def _parquet(paths: OutputPaths, schema: RowSchema, settings: _Settings) -> Sink:
    from blip2cli.sinks.parquet import ParquetSink  # pyarrow takes a while to import

    return ParquetSink(paths, schema, settings)


WRITERS: dict[str, Callable[[OutputPaths, RowSchema, _Settings], Sink]] = {
    ".jsonl": _jsonl,
    ".jsonl.gz": _jsonl_gz,
    ".parquet": _parquet,
}


def open_sink(
    options: OutputOptions,
    columns: Sequence[Column],
    settings: Mapping[str, object],
    stdout: BinaryIO,
) -> Sink:
    """Return the writer for ``options.out``; nothing is created before the first rows.

    ``columns`` are the task's own. With ``options.errors == "inline"`` there is a last column
    ``error``, and rows for failed images come from ``RowSchema.failed``. Raises OutputError for
    what :func:`check_output` refuses.
    """
    check_output(options)
    schema = RowSchema.of(columns, inline_errors=options.errors == "inline")
    if to_stdout(options):
        return StdoutSink(stdout, schema)
    out = options.out or ""
    return WRITERS[known_suffix(out) or ""](OutputPaths.of(out), schema, settings)


def open_errors(options: OutputOptions, stderr: TextIO) -> ErrorSink:
    """Return the place for failed images; see ``errors``."""
    if options.errors == "inline":
        return NoErrors()
    if to_stdout(options):
        return ErrorLines(stderr)
    return ErrorFile(OutputPaths.of(options.out or ""))
