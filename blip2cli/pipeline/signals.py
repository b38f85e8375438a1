"""Stopping a run on SIGINT, SIGTERM or SIGHUP without losing what is finished."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

from blip2cli.exit_codes import SUCCESS, of_signal

_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


class Interrupted(BaseException):
    """A signal arrived while nothing was in flight.

    Not an ``Exception``, so that no handler of failures on the way up takes it for one.
    """


class Interrupts:
    """While entered, the first signal asks the run to stop and the second ends the process.

    The first one raises ``Interrupted`` at once, unless a ``shielded`` block is running: then it
    only sets ``signum``, which the run looks at when the block is done. Outside the main thread,
    where Python cannot set handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.signum: int | None = None
        self._shielded = False
        self._previous: dict[signal.Signals, object] = {}

    def __enter__(self) -> Self:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                # A signal that the parent ignores (nohup, a background job) stays ignored.
                if signal.getsignal(number) is not signal.SIG_IGN:
                    self._previous[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *exc: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    @contextmanager
    def shielded(self) -> Iterator[None]:
        """What runs inside is finished before the first signal takes effect."""
        self._shielded = True
        try:
            yield
        finally:
            self._shielded = False

    @property
    def exit_code(self) -> int:
        """128 plus the signal's number, as shells report it; 0 when no signal came."""
        return SUCCESS if self.signum is None else of_signal(self.signum)

    def _handle(self, signum: int, frame: FrameType | None) -> None:
        if self.signum is not None:
            # A closed terminal sends a hangup, and so does the shell that ends with it.
            if signum != signal.SIGHUP:
                os._exit(of_signal(signum))
            return
        self.signum = signum
        if not self._shielded:
            raise Interrupted
