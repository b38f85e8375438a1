"""References that take their time, or never end.

In a module without torch: workers import it.
"""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from blip2cli.sources.base import ImageRef
from tests.images.helpers import Made


def sleep() -> None:
    time.sleep(3600)


def hold_the_interpreter_lock() -> None:
    """As a decoder in an endless loop does: no other Python code runs, no handler, no thread."""
    ctypes.PyDLL(None).sleep(3600)


@dataclass(frozen=True)
class Hang(ImageRef):
    """An image that is never read to its end."""

    how: Callable[[], None] = sleep

    def read(self) -> bytes:
        self.how()
        return b""


@dataclass(frozen=True)
class Slow(Made):
    """One that takes its time."""

    seconds: float = 0.0

    def read(self) -> bytes:
        time.sleep(self.seconds)
        return self.data


@dataclass(frozen=True)
class StallsOnce(Made):
    """One that hangs only the first time, as when a file server comes back."""

    def read(self) -> bytes:
        if not os.path.exists(self.path):
            Path(self.path).touch()
            time.sleep(3600)
        return self.data
