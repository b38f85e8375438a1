"""Says what a run waits for when no rows have come for long.

It ends nothing: what takes too long is ended by the limits of images and of workers. It names what
a person would look for: the image, the worker process, the source. The first such remark comes
after a minute, the next when the wait has doubled; where a batch simply takes that long, later ones
may take twice as long as it before anything is said.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from typing import Self

from blip2cli.pipeline.events import Listener, Waiting
from blip2cli.pipeline.stats import Stage

REMARK_AFTER = 60.0  # seconds without rows
_PAUSED = 10.0  # seconds that a look comes too late: the process itself stood still


class StallWatch:
    """Looks now and then, in a thread, whether rows have come; a context manager, which ends it.

    The run says when rows came (``moved``) and what it does at present (``stage``).
    """

    def __init__(self) -> None:
        self.moved = time.perf_counter()
        self.stage: Stage = "read"
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None

    def start(self, on_event: Listener, waiting_for: Callable[[Stage], str]) -> None:
        """Begin; ``waiting_for`` says what a stage waits for. Both are called in the thread."""
        self.moved = time.perf_counter()
        arguments = (on_event, waiting_for, REMARK_AFTER)
        thread = threading.Thread(
            target=self._work, args=arguments, name="stall watch", daemon=True
        )
        with contextlib.suppress(RuntimeError):  # there can be no further thread
            thread.start()
            self._thread = thread

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(1.0)  # it may be printing where nobody reads

    def _work(self, on_event: Listener, waiting_for: Callable[[Stage], str], after: float) -> None:
        pause = after / 20
        limit = due = after
        last, looked = self.moved, time.perf_counter()
        while not self._ended.wait(pause):
            now = time.perf_counter()
            if now - looked > pause + _PAUSED:  # stopped from a terminal, say
                self.moved += now - looked
            looked = now
            if self.moved != last:
                if due > limit:  # it was only slow
                    limit = max(limit, 2 * (self.moved - last))
                last, due = self.moved, limit
            if now - last >= due:
                on_event(Waiting(self.stage, _named(waiting_for, self.stage), now - last))
                due = 2 * (now - last)


def _named(waiting_for: Callable[[Stage], str], stage: Stage) -> str:
    if stage == "write":
        return "rows to be written"
    try:
        return waiting_for(stage)
    except (LookupError, RuntimeError):  # it changed just then: the run goes on
        return "what has just come"
