"""What a run is going to do, found out before anything heavy is loaded."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import chain, islice
from typing import TYPE_CHECKING, BinaryIO

from blip2cli import __version__
from blip2cli.errors import OptionError
from blip2cli.options import RunOptions, SourceOptions
from blip2cli.pipeline import events
from blip2cli.pipeline.output import check_kept, check_summary, run_settings
from blip2cli.sinks import Resumed, check_output, check_settings, read_output
from blip2cli.sources import ImageRef, open_sources
from blip2cli.tasks.questions import check_names

if TYPE_CHECKING:
    from blip2cli.tasks.base import Task

_PEEKED = 256  # images listed ahead: the number of a small source is known before it starts


@dataclass
class Plan:
    """A source that was looked at: it is not empty, and its names fit the task.

    ``refs`` yields every image that is to be run, once; ``first`` are the earliest of them, none
    only when an earlier run has dealt with all.
    """

    first: tuple[ImageRef, ...]
    refs: Iterator[ImageRef]
    total: int | None  # None: there are more than were listed ahead
    resumed: Resumed | None
    selected: _Selected

    @property
    def skipped(self) -> int:
        """Images passed over so far because the task is not about them."""
        return self.selected.skipped

    @property
    def already(self) -> int:
        """Images passed over so far because an earlier run has dealt with them."""
        return self.selected.already

    @property
    def failed_before(self) -> int:
        """Images that failed in an earlier run and are not tried again."""
        return self.selected.failed_before


def check_options(task: Task, options: RunOptions) -> None:
    """Raise ``UserError`` for what is wrong with the options, before anything is touched."""
    task.check(options.model)
    if options.output.retry_errors and options.output.errors == "inline":
        raise OptionError(
            "--retry-errors reads the file of failed images, which --errors inline does without; "
            "leave one of the two out."
        )
    check_output(options.output)
    check_summary(options.output.summary)
    check_kept(task, options)


def prepare(task: Task, options: RunOptions, stdin: BinaryIO | None = None) -> Plan:
    """Check options, output and source; raise ``UserError`` with the first thing that is wrong.

    Loads neither torch nor the model, and changes nothing.
    """
    check_options(task, options)
    resumed = read_output(options.output, task.row_count)
    if resumed is not None:
        out = options.output.out or ""
        check_settings(out, resumed.rows.settings, run_settings(task, options))
    source = options.source
    if task.only is not None:
        # The listing is read twice, so paths that come through stdin have to be kept.
        kept = stdin.read() if stdin is not None and "-" in source.sources else b""
        everything = replace(source, include=(), exclude=(), limit=None)
        check_names(
            task.only, (ref.file_name for ref in open_sources(everything, io.BytesIO(kept)))
        )
        stdin = io.BytesIO(kept)
    selected = _Selected(open_sources(source, stdin), task, resumed, options.output.retry_errors)
    first = tuple(islice(selected, _PEEKED))
    if not first and not selected.already:
        raise OptionError(
            "None of the images that --limit, --include and --exclude leave has a question in "
            "--questions; loosen them."
        )
    total = len(first) if len(first) < _PEEKED else None
    return Plan(first, chain(first, selected), total, resumed, selected)


class Total:
    """How many images there are, counted by a thread of its own where ``source`` is given.

    Listing is quick beside the model, but not so quick that a run should wait for it.
    """

    def __init__(self, plan: Plan, source: SourceOptions | None) -> None:
        self.known = plan.total
        self._already = plan.already
        self._source = source if plan.total is None else None

    def begin(self) -> None:
        """Start counting, once; called when the first batch is there, not to compete with it."""
        source, self._source = self._source, None
        if source is not None and "-" not in source.sources:
            threading.Thread(target=self._count, args=(source,), daemon=True).start()

    def _count(self, source: SourceOptions) -> None:
        self.known = max(0, sum(1 for _ in open_sources(source)) - self._already)


class _Selected:
    """The images of a source that are to be run, counting the others."""

    def __init__(
        self, refs: Iterator[ImageRef], task: Task, resumed: Resumed | None, retry: bool
    ) -> None:
        self._refs = refs
        self._only = task.only
        self._resumed = resumed
        self._retry = retry
        self.skipped = 0
        self.already = 0

    @property
    def failed_before(self) -> int:
        if self._resumed is None:
            return 0
        errors = self._resumed.failures
        noted = 0 if errors is None or self._retry else len(errors.failed)
        return noted + self._resumed.rows.failed

    def __iter__(self) -> Iterator[ImageRef]:
        return self

    def __next__(self) -> ImageRef:
        for ref in self._refs:
            if self._only is not None and ref.file_name not in self._only:
                self.skipped += 1
            elif self._is_dealt_with(ref.file_name):
                self.already += 1
            else:
                return ref
        raise StopIteration

    def _is_dealt_with(self, file_name: str) -> bool:
        if self._resumed is None:
            return False
        if file_name in self._resumed.rows.done:
            return True
        errors = self._resumed.failures
        return errors is not None and not self._retry and file_name in errors.failed


def resumed(plan: Plan, retry_errors: bool) -> events.Resumed:
    """What an earlier run left, as an event."""
    assert plan.resumed is not None
    version = (plan.resumed.rows.settings or {}).get("version")
    errors = plan.resumed.failures
    return events.Resumed(
        images=len(plan.resumed.rows.done),
        failed=plan.failed_before,
        retried=len(errors.failed) if errors is not None and retry_errors else 0,
        version=str(version) if version != __version__ else None,
    )
