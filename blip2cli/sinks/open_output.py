"""Opens an output: its writer, its list of failed images, and what a run that resumes finds."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import BinaryIO

from blip2cli.errors import OutputError, option
from blip2cli.options import OutputOptions
from blip2cli.sinks.base import IDENTITY, Column, RowSchema, Sink, disk_errors
from blip2cli.sinks.check_output import check_output
from blip2cli.sinks.differences import check_settings
from blip2cli.sinks.failure_list import FailureFile, FailureList
from blip2cli.sinks.failure_list_journal import FailureJournal, read_failures
from blip2cli.sinks.format_table import format_of
from blip2cli.sinks.journal import Journal, RowCount
from blip2cli.sinks.jsonl import StdoutSink
from blip2cli.sinks.paths import OutputPaths, to_stdout
from blip2cli.sinks.settings import Settings, recover_settings, update_settings
from blip2cli.sinks.settings_file import mark
from blip2cli.storage.object_requests import ObjectFolder
from blip2cli.storage.remote_errors import RemoteError


@dataclass(frozen=True)
class ResumedOutput:
    """The journals of an output and of its list of failed images."""

    rows: Journal
    failures: FailureJournal | None
    paths: OutputPaths
    written: float  # when rows were written last, in seconds since 1970

    @property
    def columns(self) -> Mapping[str, str]:
        """The types of the carried columns so far."""
        return self.rows.settings.columns if self.rows.settings is not None else {}

    def adopt(self, now: Settings, finished: bool = False) -> Settings:
        """The settings of the output once rows are made with ``now``, which are stored; of a share
        also whether it is ``finished``.

        Raises OutputError when those rows would not fit, RunError. Sources were compared before.
        """
        before = self.rows.settings
        check_settings(self.paths.final, before, replace(now, sources=None))
        assert before is not None  # as ``check_settings`` finds out
        settings = before.adopt(now)
        with disk_errors(self.paths.final, "nothing of it was lost"):
            recover_settings(self.paths)
            if settings != before:
                update_settings(self.paths, settings)
            if settings.shard is not None:
                mark(self.paths, finished=finished or None)
        return settings

    def complete(self) -> None:
        """Repair what a crash left, when no image is left. Raises RunError."""
        with disk_errors(self.paths.final, "nothing of it was lost"):
            if self.failures is not None:
                self.failures.complete()  # before: rows that are noted as finished have a right one
            self.rows.complete()


def read_output(options: OutputOptions, row_count: RowCount) -> ResumedOutput | None:
    """The journals of the output to append to; None without ``options.resumes`` or an output.

    ``row_count`` is the number of rows an image has. Raises OutputError for an output that cannot
    be read.
    """
    if not options.resumes or to_stdout(options):
        return None
    paths = OutputPaths.of(options.out or "")
    try:
        before = _state(paths)
        written = _written(paths)
        rows = format_of(options.out or "").read_journal(
            paths, row_count, options.errors == "inline"
        )
        if rows is None:
            return None
        rows = replace(rows, complete=partial(_complete, paths, before, rows.complete))
        failures = read_failures(paths, rows.done) if options.errors == "file" else None
    except OSError as error:
        raise OutputError(
            "resume",
            f"{option('resume')}: {options.out!r} or a file beside it cannot be read "
            f"({error.strerror or error})",
            error.remedy if isinstance(error, RemoteError) else "look at its permissions and disk",
        ) from None
    return ResumedOutput(rows, failures, paths, written)


def _complete(paths: OutputPaths, before: object, complete: Callable[[], None]) -> None:
    """Repair an output that nobody changed since it was read. Raises OSError."""
    if _state(paths) != before:
        raise OSError(errno.ESTALE, "something else changed it since this run read it")
    complete()


def _written(paths: OutputPaths) -> float:
    """When rows were written last, in seconds since 1970. Raises OSError."""
    if paths.is_remote:
        return max(ObjectFolder(url).latest() for url in (paths.final, paths.beside_folder))
    found = map(_stat, paths.with_rows())
    return max((about.st_mtime for about in found if about is not None), default=0.0)


def _state(paths: OutputPaths) -> list[tuple[int, int]]:
    """What tells whether a file of the output was written to or replaced.

    Of a store nothing: its lock is looked at before each request.
    """
    files = paths.with_rows() if paths.is_folder else [paths.final]
    return [(about.st_ino, about.st_size) for about in map(_stat, files) if about is not None]


def _stat(path: str) -> os.stat_result | None:
    try:
        return os.stat(path)
    except FileNotFoundError:
        return None


def open_sink(
    options: OutputOptions,
    columns: Sequence[Column],
    settings: Settings,
    stdout: BinaryIO,
    journal: Journal | None = None,
    identity: Sequence[Column] = IDENTITY,
) -> Sink:
    """The writer for the output; nothing is created before the first rows.

    ``journal`` is that of the output to append to, when a run resumes. ``columns`` are the task's
    own, behind those of ``identity``. If ``options.errors`` is "inline" there is a last column
    ``error``. Raises OutputError for what :func:`check_output` refuses.
    """
    check_output(options)
    schema = RowSchema.of(columns, options.errors == "inline", identity)
    if to_stdout(options):
        return StdoutSink(stdout, schema)
    paths = OutputPaths.of(options.out or "", options.overwrite)
    return format_of(options.out or "").open_writer(paths, schema, settings, journal)


def open_failure_list(options: OutputOptions, journal: FailureJournal | None = None) -> FailureList:
    """The list of failed images beside the output; none beside stdout."""
    if options.errors == "inline" or to_stdout(options):
        return FailureList()
    return FailureFile(OutputPaths.of(options.out or "", options.overwrite), journal)
