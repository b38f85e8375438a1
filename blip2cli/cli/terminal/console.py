"""A run on stderr: prints events as they come, with a progress bar on a terminal."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from blip2cli.cli.terminal.run_summary import (
    count_of,
    device_line,
    page_lines,
    phases_line,
    progress_line,
    resumed_lines,
    summary_lines,
    waiting_line,
    worker_line,
)
from blip2cli.cli.terminal.spelling import readable
from blip2cli.model.checkpoint.embedded import EMBEDDED
from blip2cli.pipeline.events import (
    DeviceUsed,
    Evaluated,
    Event,
    Failed,
    Finished,
    Halved,
    ModelReady,
    OldFailures,
    PageWritten,
    Progress,
    Remark,
    Resumed,
    Slower,
    Started,
    TookOver,
    Waiting,
    WorkerEnded,
)

if TYPE_CHECKING:
    from tqdm import tqdm

TINY_NOTE = (
    "Note: {} is a demonstration that knows drawn objects only; for photographs use --model {}."
)
_PLAIN_INTERVAL = 60.0  # seconds between lines where no terminal shows a bar


class Console:
    """Listens to a run. Everything goes to ``stream``; nothing but errors when ``quiet``."""

    def __init__(
        self,
        stream: TextIO,
        *,
        quiet: bool,
        verbosity: int,
        list_failures: bool,
        errors_file: str | None = None,
        again: str | None = None,
    ) -> None:
        """``list_failures``: print a line for every failed image, even when ``quiet``, because
        they are written nowhere else; else only ``verbosity`` does. ``errors_file``: where they
        are written; ``again``: the command to go on with.
        """
        self.stream = stream
        self.quiet = quiet
        self.verbosity = verbosity
        self.bar_wanted = stream.isatty() and not quiet
        self._list_failures = list_failures
        self._errors_file = errors_file
        self._again = again
        self._bar: tqdm[Any] | None = None
        self._total: int | None = None
        self._unit = "image"
        self._ready_at = 0.0
        self._last_line = 0.0

    def __call__(self, event: Event) -> None:
        """Print ``event``, if it is to be printed."""
        match event:
            case Started():
                self._started(event)
            case TookOver():
                self.print_line(
                    f"Took over the lock of {event.holder}, which ended without releasing it."
                )
            case OldFailures():
                self.print_line(
                    f"{event.path} is a list of failures by blip2cli 0.1, which is not touched."
                )
            case Resumed():
                for line in resumed_lines(event):
                    self.print_line(line)
                if event.remark is not None:  # even when quiet: rows were damaged
                    self._print(f"Note: {event.remark}.")
            case ModelReady():
                self._ready(event)
            case Remark():
                self.print_line(f"Note: {event.text}.")
            case Failed():
                if self._list_failures or (self.verbosity and not self.quiet):
                    self._print(f"{event.file_name}: {event.error_type}: {event.message}")
            case Halved():
                count = count_of(event.batch_size)
                where = f" on {event.device}" if event.device else ""
                self.print_line(f"Out of memory{where}: going on with batches of {count}.")
            case Slower():
                if self.verbosity:
                    self.print_line(f"Slower than it might be: {event.reason}.")
            case WorkerEnded():
                self.print_line(worker_line(event))
            case DeviceUsed():
                if self.verbosity:
                    self.print_line(device_line(event, self._unit))
            case Progress():
                self._progress(event)
            case Waiting():
                self.print_line(waiting_line(event, self._unit))
            case Finished():
                self.close()
                for line in summary_lines(event.summary, self._errors_file, self._again):
                    self.print_line(line)
                if self.verbosity and event.summary.first_seconds:
                    self.print_line(phases_line(event.summary))
            case Evaluated():
                for line in event.lines:
                    self.print_line(line)
            case PageWritten():
                for line in page_lines(event):
                    self.print_line(line)

    def print_line(self, line: str) -> None:
        """Print a line above the bar, unless quiet."""
        if not self.quiet:
            self._print(line)

    @contextmanager
    def paused(self) -> Iterator[None]:
        """Take the bar off the terminal while something else is printed there."""
        if self._bar is None:
            yield
            return
        self._bar.clear()
        try:
            yield
        finally:
            self._bar.refresh()

    def close(self) -> None:
        """Take the bar away for good."""
        if self._bar is not None:
            self._bar.close()
            self._bar = None

    def _print(self, line: str) -> None:
        with self.paused():
            print(readable(line), file=self.stream, flush=True)

    def _started(self, event: Started) -> None:
        self._total, self._unit = event.total, event.unit
        if event.model in EMBEDDED:
            self.print_line(TINY_NOTE.format(event.model, EMBEDDED[event.model]))
        elif self.bar_wanted:
            self.print_line(f"Loading {event.model} …")

    def _ready(self, event: ModelReady) -> None:
        self._ready_at = self._last_line = time.monotonic()
        if self.verbosity:
            self.print_line(
                f"{event.name} on {event.device} in {event.dtype}: {event.reason} "
                f"(loaded in {event.seconds:.1f} s)"
            )
        if self.bar_wanted:
            from tqdm import tqdm

            tqdm.monitor_interval = 0  # its thread would only redraw a bar that stands still
            self._bar = tqdm(
                total=self._total,
                unit=f" {self._unit}s",
                file=self.stream,
                leave=False,
                dynamic_ncols=True,
                mininterval=0.1,
            )

    def _progress(self, event: Progress) -> None:
        if self._bar is not None:
            self._bar.total = event.total
            if event.failed:
                self._bar.set_postfix_str(f"{event.failed} failed", refresh=False)
            self._bar.update(event.done + event.failed - self._bar.n)
            return
        now = time.monotonic()
        if now - self._last_line >= _PLAIN_INTERVAL:
            self._last_line = now
            self.print_line(progress_line(event, now - self._ready_at, self._unit))
