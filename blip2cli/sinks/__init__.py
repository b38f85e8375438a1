"""Where rows go: one writer a file, chosen by the suffix of the output."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import BinaryIO

from blip2cli.errors import OutputError
from blip2cli.options import OutputOptions
from blip2cli.sinks.base import IDENTITY, Column, RowSchema, Sink, disk_errors
from blip2cli.sinks.failure_list import ErrorFile, ErrorSink, NoErrors
from blip2cli.sinks.failure_list_journal import ErrorJournal, read_errors
from blip2cli.sinks.journal import Journal, RowCount, check_settings
from blip2cli.sinks.jsonl import JsonlSink
from blip2cli.sinks.lock import OutputLock
from blip2cli.sinks.paths import OutputPaths, check_output, known_suffix, to_stdout
from blip2cli.sinks.stdout import StdoutSink

__all__ = [
    "Column",
    "ErrorSink",
    "OutputLock",
    "Resumed",
    "RowSchema",
    "Sink",
    "check_output",
    "check_settings",
    "open_errors",
    "open_sink",
    "read_output",
    "to_stdout",
]

_Settings = Mapping[str, object]


def _jsonl(
    paths: OutputPaths, schema: RowSchema, settings: _Settings, journal: Journal | None
) -> Sink:
    return JsonlSink(paths, schema, settings, paths.compressed, journal)


def _parquet(
    paths: OutputPaths, schema: RowSchema, settings: _Settings, journal: Journal | None
) -> Sink:
    from blip2cli.sinks.parquet import ParquetSink  # pyarrow takes a while to import

    return ParquetSink(paths, schema, settings, journal)


def _read_jsonl(paths: OutputPaths, row_count: RowCount, inline: bool) -> Journal | None:
    from blip2cli.sinks.jsonl_journal import read_jsonl

    return read_jsonl(paths, paths.compressed, row_count, inline)


def _read_parquet(paths: OutputPaths, row_count: RowCount, inline: bool) -> Journal | None:
    from blip2cli.sinks.parquet_journal import read_parquet

    return read_parquet(paths)  # its parts hold whole images, and its rows say whether they failed


@dataclass(frozen=True)
class _Format:
    write: Callable[[OutputPaths, RowSchema, _Settings, Journal | None], Sink]
    read: Callable[[OutputPaths, RowCount, bool], Journal | None]


FORMATS: dict[str, _Format] = {
    ".jsonl": _Format(_jsonl, _read_jsonl),
    ".jsonl.gz": _Format(_jsonl, _read_jsonl),
    ".parquet": _Format(_parquet, _read_parquet),
}


@dataclass(frozen=True)
class Resumed:
    """What an output and its neighbour for failures hold already."""

    rows: Journal
    errors: ErrorJournal | None
    path: str

    def complete(self) -> None:
        """Mend what a crash left, when nothing is left to do. Raises RunError."""
        with disk_errors(self.path, "nothing of it was lost"):
            self.rows.complete()
            if self.errors is not None:
                self.errors.complete()


def read_output(options: OutputOptions, row_count: RowCount) -> Resumed | None:
    """What there is to go on with; None without ``options.resume`` or without an output.

    Raises OutputError when what is there cannot be gone on with.
    """
    if not options.resume or to_stdout(options):
        return None
    paths = OutputPaths.of(options.out or "")
    try:
        read = FORMATS[known_suffix(paths.final) or ""].read
        rows = read(paths, row_count, options.errors == "inline")
        if rows is None:
            return None
        errors = read_errors(paths, rows.done) if options.errors == "file" else None
    except OSError as error:
        raise OutputError(
            f"--resume: {options.out!r} or a file beside it cannot be read ({error.strerror})."
        ) from None
    return Resumed(rows, errors, paths.final)


def open_sink(
    options: OutputOptions,
    columns: Sequence[Column],
    settings: Mapping[str, object],
    stdout: BinaryIO,
    journal: Journal | None = None,
    identity: Sequence[Column] = IDENTITY,
) -> Sink:
    """Return the writer for ``options.out``; nothing is created before the first rows.

    ``journal`` is that of the output that is there, to go on with it.

    ``columns`` are the task's own, behind those of ``identity``. With
    ``options.errors == "inline"`` there is a last column ``error``, and rows for failed images
    come from ``RowSchema.failed``. Raises OutputError for what :func:`check_output` refuses.
    """
    check_output(options)
    schema = RowSchema.of(columns, options.errors == "inline", identity)
    if to_stdout(options):
        return StdoutSink(stdout, schema)
    paths = OutputPaths.of(options.out or "")
    return FORMATS[known_suffix(paths.final) or ""].write(paths, schema, settings, journal)


def open_errors(options: OutputOptions, journal: ErrorJournal | None = None) -> ErrorSink:
    """Return the list of failed images beside the output; none beside stdout."""
    if options.errors == "inline" or to_stdout(options):
        return NoErrors()
    return ErrorFile(OutputPaths.of(options.out or ""), journal)
