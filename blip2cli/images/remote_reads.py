"""Concurrent reads of images on other machines, started before the images are requested.

A server answers after tens of milliseconds however small an image is, and the model would wait for
nearly all of them. So threads have many requests under way at once, in the order in which their
images are decoded. Measured with 50 ms an answer, see ``benchmarks/stores.py``.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from blip2cli.sources.base import ImageRef

READS = 32  # under way at once: 600 images a second at 50 ms each
# Of images that are read and not yet taken, or being read; no further read is started beyond.
READ_BYTES = 64 << 20
_UNKNOWN_SIZE = 1 << 20  # counted for an image whose size no listing gave, until it is read
_TAKEN = 2 * READS  # references that are taken from the source beforehand


class _Read:
    """One read: waiting, under way or done; or given up, and left to whoever takes it."""

    def __init__(self, ref: ImageRef, threads: ReadThreads) -> None:
        self.ref = ref
        self.bytes = getattr(ref, "size", None) or _UNKNOWN_SIZE
        self.done = threading.Event()
        self.given_up = False
        self.data = b""
        self.error: BaseException | None = None
        self._threads = threads

    def take(self) -> bytes:
        self.done.wait()
        if self.given_up:
            return self.ref.read()
        self._threads.taken(self.bytes)
        data, self.data, self.bytes = self.data, b"", 0
        if self.error is not None:
            raise self.error
        return data


@dataclass(frozen=True)
class PendingRef(ImageRef):
    """A reference whose image is being read. Another process is sent the original."""

    result: _Read

    def read(self) -> bytes:
        """Return the whole file, waited for. Raises as the original does."""
        return self.result.take()

    def __reduce__(self) -> tuple[Any, tuple[ImageRef]]:
        return _original, (self.result.ref,)


def _original(ref: ImageRef) -> ImageRef:
    return ref


class ReadThreads:
    """Threads that read images, at most ``most`` at once. They end with the process."""

    def __init__(self, most: int = READS, max_bytes: int = READ_BYTES) -> None:
        self._most = most
        self._max_bytes = max_bytes
        self._bytes = 0  # see READ_BYTES
        self._waiting: deque[_Read] = deque()
        self._threads = 0
        self._closed = False
        self._changed = threading.Condition()

    def start(self, ref: ImageRef) -> ImageRef:
        """Read ``ref``, a remote one, as soon as its turn comes; returns what gives the result."""
        read = _Read(ref, self)
        with self._changed:
            if self._closed:
                return ref
            if self._threads < self._most:
                try:
                    threading.Thread(target=self._work, name="read", daemon=True).start()
                    self._threads += 1
                except RuntimeError:  # there can be no further thread
                    if not self._threads:
                        return ref
            self._waiting.append(read)
            self._changed.notify()
        return PendingRef(
            ref.file_name, ref.path, read, carried=ref.carried, occurrence=ref.occurrence
        )

    def taken(self, size: int) -> None:
        """As many bytes of what was read are in use now."""
        with self._changed:
            self._count(-size)

    def close(self) -> None:
        """Start no further read; reads under way end in the background."""
        with self._changed:
            self._closed = True
            for read in self._waiting:
                read.given_up = True
                read.done.set()
            self._waiting.clear()
            self._changed.notify_all()

    def _work(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(self._may_read)
                if self._closed:
                    return
                read = self._waiting.popleft()
                self._count(read.bytes)
            try:
                read.data = read.ref.read()
            except BaseException as error:  # noqa: BLE001 - raised again, where it is taken
                read.error = error
            with self._changed:
                self._count(len(read.data) - read.bytes)
                read.bytes = len(read.data)
            read.done.set()

    def _count(self, size: int) -> None:
        full = self._bytes >= self._max_bytes
        self._bytes += size
        if full and self._bytes < self._max_bytes:  # else all threads would wake for nothing
            self._changed.notify_all()

    def _may_read(self) -> bool:
        return self._closed or (bool(self._waiting) and self._bytes < self._max_bytes)


class RemoteRefs(Iterator[ImageRef]):
    """The references of a source from its first remote one on, which are read beforehand.

    A thread takes them, so that an image that is there never waits for the listing of the next.
    Until ``stop`` has returned, ``refs`` belong to it.
    """

    def __init__(self, first: ImageRef, refs: Iterator[ImageRef]) -> None:
        self._refs = refs
        self._threads = ReadThreads()
        self._taken: deque[ImageRef] = deque()
        self._error: BaseException | None = None  # of ``refs``
        self._stopped = False
        self._done = False
        self._changed = threading.Condition()
        self._thread = threading.Thread(
            target=self._take, args=(first,), name="remote refs", daemon=True
        )
        self._thread.start()

    def __next__(self) -> ImageRef:
        """Raises what ``refs`` raised, after the references before it."""
        with self._changed:
            self._changed.wait_for(lambda: self._taken or self._done or self._stopped)
            if self._stopped or not self._taken:
                if self._error is not None and not self._stopped:
                    raise self._error
                raise StopIteration
            ref = self._taken.popleft()
            self._changed.notify_all()
        return ref

    def stop(self) -> None:
        """Give no further reference, and read none."""
        self._threads.close()
        with self._changed:
            self._stopped = True
            self._changed.notify_all()

    def rest(self) -> Iterator[ImageRef]:
        """Stop, and return the original references that were not given, those of ``refs`` last."""
        self.stop()
        self._thread.join()
        for ref in self._taken:
            yield ref.result.ref if isinstance(ref, PendingRef) else ref
        if self._error is not None:
            raise self._error
        yield from self._refs

    def _take(self, first: ImageRef) -> None:
        try:
            ref: ImageRef | None = first
            while ref is not None:
                if ref.remote:
                    ref = self._threads.start(ref)
                with self._changed:
                    self._taken.append(ref)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._stopped or len(self._taken) < _TAKEN)
                    if self._stopped:
                        break
                ref = next(self._refs, None)
        except BaseException as error:  # noqa: BLE001 - raised again, where references are taken
            self._error = error
        finally:
            with self._changed:
                self._done = True
                self._changed.notify_all()
