"""References that need no file, or misbehave; what decoding gives; processes and threads."""

from __future__ import annotations

import os
import signal
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from blip2cli.errors import ImageError
from blip2cli.images.decode import decode
from blip2cli.images.preprocess import PixelSpec
from blip2cli.options import LoaderOptions
from blip2cli.sources.base import ImageRef
from tests.images.pictures import picture

SPEC = PixelSpec(16, 20)


@dataclass(frozen=True)
class Made(ImageRef):
    """An image that needs no file."""

    data: bytes = b""

    def read(self) -> bytes:
        return self.data


@dataclass(frozen=True)
class Crash(ImageRef):
    """An image that kills the process that decodes it."""

    def read(self) -> bytes:
        os.kill(os.getpid(), signal.SIGKILL)
        return b""


@dataclass(frozen=True)
class CrashOnce(Made):
    """One that does so only the first time, as when the system was short of memory."""

    def read(self) -> bytes:
        if not os.path.exists(self.path):
            Path(self.path).touch()
            os.kill(os.getpid(), signal.SIGKILL)
        return self.data


@dataclass(frozen=True)
class Broken(ImageRef):
    """One with a mistake in its own code."""

    def read(self) -> bytes:
        raise ZeroDivisionError("a mistake")


def made(number: int, data: bytes | None = None) -> Made:
    name = f"{number:03d}.png"
    return Made(name, f"/made/{name}", picture(number) if data is None else data)


def options(batch_size: int = 4, workers: int | None = 0) -> LoaderOptions:
    return LoaderOptions(batch_size, workers)


@dataclass(frozen=True)
class Reader(ImageRef):
    """One that says by which process it was read."""

    def read(self) -> bytes:
        time.sleep(0.01)
        raise ImageError("read_by", str(os.getpid()))


@dataclass(frozen=True)
class Gate(ImageRef):
    """An image that cannot be read before the gate is open, as on a stalled file system."""

    data: bytes = b""
    reached: threading.Event = field(default_factory=threading.Event)
    opened: threading.Event = field(default_factory=threading.Event)

    def read(self) -> bytes:
        self.reached.set()
        self.opened.wait(60)
        return self.data


@dataclass(frozen=True)
class Hangs(ImageRef):
    """An image that is read for ever."""

    def read(self) -> bytes:
        while True:
            time.sleep(0.1)


def until(condition: object, seconds: float = 20) -> bool:
    assert callable(condition)
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if condition():
            return True
        time.sleep(0.005)
    return False


def prefetch_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == "prefetch"]


def pixels(data: bytes) -> np.ndarray:
    picture = decode(data)
    assert picture.image.mode == "RGB"
    assert picture.image.size == (picture.width, picture.height)
    return np.asarray(picture.image)


def failure(data: bytes) -> ImageError:
    import pytest  # which workers, who import this module, do without

    with pytest.raises(ImageError) as caught:
        decode(data)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    return caught.value
