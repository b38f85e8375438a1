"""Where a run's rows and failures go: the sink, and its neighbour for failures."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import TYPE_CHECKING, Any, Self

from blip2cli.errors import OptionError, RunError, option
from blip2cli.options import RunOptions
from blip2cli.pipeline.settings import run_settings
from blip2cli.pipeline.signals import Interrupted
from blip2cli.sinks import (
    Column,
    FailureList,
    Settings,
    Sink,
    new_token,
    open_failure_list,
    open_sink,
)
from blip2cli.sinks.base import disk_errors
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings_file import mark
from blip2cli.storage.hash_set import OCCURRENCE, ORDINAL, occurrence_key

if TYPE_CHECKING:
    from blip2cli.images.load_image import LoadedImage
    from blip2cli.pipeline.compute.base import Ready
    from blip2cli.pipeline.job import Job
    from blip2cli.pipeline.plan import Plan
    from blip2cli.pipeline.processed_batch import ProcessedBatch
    from blip2cli.tasks.base import BaseTask, Row, Task


@dataclass
class Output:
    """The sink and the list of failures, written and committed together.

    As a context manager it aborts what was not closed: rows committed so far stay.
    """

    sink: Sink
    failures: FailureList
    task: Any  # the one that made the rows
    inline: bool = False  # failures are rows with an ``error`` column
    carried: tuple[str, ...] = ()  # columns of the source that are carried into the rows
    started: bool = False  # a row was written
    replaces: bool = False  # an older output is to stay whole until then
    waiting: list[Any] = field(default_factory=list)  # failures until then, as ``write`` takes them
    closed: bool = False
    share: OutputPaths | None = None  # the output is a share's: that it is finished is noted
    read: frozenset[str] = frozenset()  # of ``carried``: those that only texts hold

    @classmethod
    def open(cls, job: Job[Any], ready: Ready, plan: Plan, now: Settings) -> Output:
        """Open both, to go on with what ``plan.resumed`` found. Raises ``UserError``.

        ``ready`` is the loaded model, ``now`` what was known before.
        """
        options, resumed, task = job.options, plan.resumed, ready.task
        settings = replace(now, rows=run_settings(task, options, ready) | job.items.settings)
        if resumed is None:
            settings = replace(settings, token=new_token())
        else:
            settings = resumed.adopt(settings)
        carried = plan.listing.columns if plan.listing is not None else ()
        written = [c for c in carried if c.name not in own_columns(task)]
        columns = (*(Column(c.name, c.type) for c in written), *task.columns)
        if job.sink is not None:
            sink = job.sink(columns, settings.rows)
        else:
            sink = open_sink(
                options.output,
                columns,
                settings,
                job.stdout or sys.stdout.buffer,
                resumed.rows if resumed is not None else None,
                job.items.identity,
            )
        failures = open_failure_list(
            options.output, resumed.failures if resumed is not None else None
        )
        inline = options.output.errors == "inline"
        replaces = options.output.overwrite
        names = tuple(column.name for column in carried)
        share = OutputPaths.of(options.output.out or "") if settings.shard and job.to_file else None
        read = frozenset(names) & own_columns(task)
        return cls(sink, failures, task, inline, names, replaces=replaces, share=share, read=read)

    def write(self, batch: ProcessedBatch) -> None:
        """Write the batch's rows and failures."""
        rows: Sequence[Row] = batch.rows
        if self.inline or self.carried:
            rows = self._completed(rows, batch.images)
        if rows:
            if not self.started:
                self.failures.remove_old()
                self.started = True
            self.sink.write(rows)
            if self.waiting:
                self._list_waiting()
        for image in batch.images:
            if image.error is None and not self.failures.failed_before:
                continue
            columns = dict(zip(self.carried, image.carried, strict=True))
            if image.error is not None:
                failure = (image.file_name, image.error, columns)
                if self.replaces and not self.started:
                    self.waiting.append(failure)
                    continue
                if not self.started:
                    self.sink.write(())  # a list of failures belongs to an output
                self.failures.write(*failure)
            else:
                key = occurrence_key(image.file_name, columns.get(OCCURRENCE))
                if key in self.failures.failed_before:
                    self.failures.succeeded(key)

    def _completed(self, rows: Sequence[Row], images: Sequence[LoadedImage]) -> list[Row]:
        """Rows of good images and, where they are rows, of failed ones, with carried columns."""
        left = iter(rows)
        completed: list[Row] = []
        for image in images:
            error: Row = {}
            if image.error is None:
                # By number: two images may have one name.
                own = list(islice(left, self.task.row_count(image.file_name)))
                if self.inline:
                    error = {"error": ""}
            elif self.inline:
                own = self.task.failed_rows(image)
                error = {"error": f"{image.error.error_type}: {image.error}"}
            else:
                continue
            more: Row = dict(zip(self.carried, image.carried, strict=True))
            for name in self.read:
                del more[name]
            more |= error
            completed += [row | more for row in own]
        return completed

    def _list_waiting(self) -> None:
        for failure in self.waiting:
            self.failures.write(*failure)
        self.waiting = []

    def close(self) -> None:
        """Complete the output."""
        if self.waiting:  # there are no rows: the empty output takes its place first
            self.sink.close()
            self._list_waiting()
            self.failures.close()
        else:
            self.failures.close()
            self.sink.close()
        if self.share is not None:
            with disk_errors(self.share.final, "its rows are safe"):
                mark(self.share, finished=True)
        self.closed = True

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.closed:
            return
        # What was finished stays, whatever ended the run. If the disk is what ended it,
        # committing fails a second time, and the first error is the one to report.
        failed = exc[0] is not None and exc[0] is not Interrupted
        again = (RunError, BrokenPipeError) if failed else ()
        try:
            with contextlib.suppress(*again):
                self.sink.commit()
                self.failures.commit()
        finally:
            self.sink.abort()
            self.failures.abort()


def own_columns(task: BaseTask) -> set[str]:
    """The columns that rows of images have whatever is carried into them."""
    return {"file_name", "width", "height", "error", *(c.name for c in task.columns)}


def check_carried(task: Task, options: RunOptions) -> None:
    """Raise ``OptionError`` when a column to carry has the name of one of our own."""
    own = own_columns(task) | {OCCURRENCE}
    own |= {ORDINAL} if options.source.shard is not None else set()
    for name in options.source.keep:
        if name in own:
            raise OptionError(
                "keep",
                f"{option('keep')} {name}: rows have a column {name} of their own",
                "rename it in the source, or leave it out",
            )
