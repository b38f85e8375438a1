"""Where a run's rows and failures go: the sink, its neighbour for failures, and the summary."""

from __future__ import annotations

import contextlib
import json
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, BinaryIO, Protocol, Self

from blip2cli import __version__
from blip2cli.errors import OptionError, OutputError, RunError
from blip2cli.options import RunOptions
from blip2cli.pipeline.events import Summary
from blip2cli.sinks import (
    Column,
    FailureList,
    Resumed,
    Sink,
    check_settings,
    open_failure_list,
    open_sink,
)
from blip2cli.sources import carried_columns
from blip2cli.storage.opening import is_remote

if TYPE_CHECKING:
    from blip2cli.images.loader import LoadedBatch
    from blip2cli.model.wrapper import Blip2
    from blip2cli.tasks.base import Row, Task

SinkOpener = Callable[[Sequence[Column], Mapping[str, object]], Sink]


@dataclass
class Output:
    """The sink and the file of failures, written and committed together.

    As a context manager it aborts what was not closed: rows committed so far stay.
    """

    task: Task
    sink: Sink
    errors: FailureList
    inline: bool  # failures are rows with an ``error`` column
    carried: tuple[str, ...] = ()  # columns of the source that are carried into the rows
    begun: bool = False  # a row was written
    closed: bool = False

    @classmethod
    def open(
        cls,
        task: Task,
        model: Blip2,
        options: RunOptions,
        opener: SinkOpener | None,
        stdout: BinaryIO | None,
        resumed: Resumed | None = None,
    ) -> Output:
        """Open both, to go on with what ``resumed`` found. Raises ``OutputError``."""
        settings = run_settings(task, options, model)
        if resumed is not None:
            check_settings(options.output.out or "", resumed.rows.settings, settings)
        carried = tuple(Column(c.name, c.type) for c in carried_columns(options.source))
        columns = (*carried, *task.columns)
        if opener is not None:
            sink = opener(columns, settings)
        else:
            journal = resumed.rows if resumed is not None else None
            stream = stdout or sys.stdout.buffer
            sink = open_sink(options.output, columns, settings, stream, journal)
        failures = resumed.failures if resumed is not None else None
        errors = open_failure_list(options.output, failures)
        inline = options.output.errors == "inline"
        return cls(task, sink, errors, inline, options.source.keep)

    def write(self, rows: Sequence[Row], batch: LoadedBatch) -> None:
        """Write the batch's rows and failures."""
        if self.inline:
            rows = self._with_failures(rows, batch)
        if self.carried:
            carried = {
                i.file_name: dict(zip(self.carried, i.carried, strict=True)) for i in batch.items
            }
            rows = [row | carried[str(row["file_name"])] for row in rows]
        if rows:
            if not self.begun:
                self.errors.remove_old()
                self.begun = True
            self.sink.write(rows)
        for item in batch.items:
            if item.error is not None:
                self.errors.write(item.file_name, item.error)
            else:
                self.errors.succeeded(item.file_name)

    def close(self) -> None:
        """Complete the output."""
        self.errors.close()
        self.sink.close()
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self.closed:
            return
        # What was finished is kept, whatever ended the run. If the disk is what ended it,
        # committing fails a second time, and the first error is the one to report.
        with contextlib.suppress(RunError, BrokenPipeError):
            self.sink.commit()
            self.errors.commit()
        self.sink.abort()
        self.errors.abort()

    def _with_failures(self, rows: Sequence[Row], batch: LoadedBatch) -> list[Row]:
        """Rows of good and failed images together, in source order."""
        left = list(reversed(rows))
        merged: list[Row] = []
        for item in batch.items:
            if item.error is not None:
                error = f"{item.error.error_type}: {item.error}"
                merged += [row | {"error": error} for row in self.task.failed_rows(item)]
                continue
            # An image may have several rows, or none.
            while left and left[-1]["file_name"] == item.file_name:
                merged.append(left.pop() | {"error": None})
        return merged


class Shaping(Protocol):
    """What shaped rows: a task of images or of texts."""

    @property
    def settings(self) -> dict[str, object]:
        """Plain JSON values."""


def run_settings(
    task: Shaping, options: RunOptions, model: Blip2 | None = None
) -> dict[str, object]:
    """What shaped the rows, stored once with the output; plain JSON values.

    Without ``model`` it is what is known before the model is loaded: the precision is missing.
    """
    settings: dict[str, object] = {
        "version": __version__,
        "model": options.model.model,
        "revision": options.model.revision,
        "quantize": options.model.quantize,
    }
    if model is not None:
        settings["dtype"] = str(model.dtype).removeprefix("torch.")
    # Unset, as in outputs from before there were such options.
    settings["fast_decode"] = options.loader.fast_decode or None
    settings["compile"] = options.model.compile or None
    settings["errors"] = options.output.errors
    settings["keep"] = list(options.source.keep)
    return settings | task.settings


def check_kept(task: Task, options: RunOptions) -> None:
    """Raise ``OptionError`` when a column of ``--keep`` has the name of one of our own."""
    own = {"file_name", "width", "height", "error", *(column.name for column in task.columns)}
    for name in options.source.keep:
        if name in own:
            raise OptionError(
                f"--keep {name}: rows have a column {name} of their own; rename it in the source, "
                "or leave it out."
            )


def check_summary(path: str | None) -> None:
    """Raise ``OutputError`` when ``--summary`` cannot be written to ``path``."""
    if path is None:
        return
    if is_remote(path):
        raise OutputError("--summary is only written to the local disk; name a local file.")
    if Path(path).is_dir():
        raise OutputError(f"--summary {path} is a folder; give the name of a file.")
    if not Path(path).absolute().parent.is_dir():
        raise OutputError(f"--summary {path}: its folder does not exist; create it first.")


def write_summary(path: str, summary: Summary) -> None:
    """Write ``summary`` as one JSON object. Raises ``OutputError``."""
    try:
        Path(path).write_text(json.dumps(summary.as_dict(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise OutputError(f"--summary {path} cannot be written: {error.strerror}.") from None
