"""The thread that gets the next batch and sends it to a device while the one before it is computed.

A device that computes stands still while its host waits for workers, puts a batch together, copies
it into pinned memory and starts its way to the device: some 100 ms for 256 images. Here a thread
does that for one batch while the main thread has another one computed. More than one is never
ready, so memory holds two batches, and the parcels that workers have under way.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol

from blip2cli.images.batches import LoadedBatch, UndecodedBatch

# Images that a worker sends at once: few, so that the first batch is there before one worker would
# have loaded it, and enough for sending to cost little.
PARCEL = 32
Pending = Callable[[], LoadedBatch]
Send = Callable[[LoadedBatch], Pending]  # starts a batch's way; called once, the result arrives
READY = 1  # batches that are sent before they are asked for
_SECONDS_TO_END = 5.0  # for the thread, which may be reading from a stalled file system


class Stream(Protocol):
    """What the thread has to know of a ``BatchStream``."""

    @property
    def decodes_at_request(self) -> bool:
        """Whether the next batch is decoded in the thread that asks for it."""


class HandOver:
    """Batches of ``stream``, from its method ``get``, sent by ``send`` before they are asked for.

    As long as the main thread decodes images itself, nothing is sent, and no thread runs: the same
    batches are given as they are. A batch with an image that only the main thread may decode is
    left to it.
    """

    def __init__(self, stream: Stream, get: Callable[[], Pending | None], send: Send) -> None:
        self._stream, self._get, self._send = stream, get, send
        self._ready: deque[Pending] = deque()
        self._error: BaseException | None = None
        self._stopped = False
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None

    def start(self) -> bool:
        """Begin with the next batch; False where it is left to the main thread."""
        if self._stream.decodes_at_request:
            return False
        self._thread = threading.Thread(target=self._work, name="hand over", daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # there can be no further thread
            self._thread = None
            return False
        return True

    def next_pending(self) -> Pending | None:
        """The next batch, to be called once in the thread that computes; None at the end.

        Raises what the stream raised, after the batches before it.
        """
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._thread is None)
                if self._ready:
                    pending = self._ready.popleft()
                    self._changed.notify_all()
                    return pending
                error, self._error = self._error, None
            if error is not None:
                raise error
            if not self.start():
                return self._get()

    def close(self) -> None:
        """Send nothing more. To be called when the stream is closed, which wakes the thread."""
        with self._changed:
            self._stopped = True
            self._changed.notify_all()
            thread = self._thread
        if thread is threading.current_thread():
            return  # at the end of the stream; what is ready is still asked for
        self._ready.clear()
        if thread is not None:
            thread.join(_SECONDS_TO_END)

    def _work(self) -> None:
        try:
            while not self._stopped and not self._stream.decodes_at_request:
                pending = self._get()
                if pending is None:
                    return
                if not (isinstance(pending, UndecodedBatch) and pending.main_thread_only):
                    pending = self._send(pending())
                with self._changed:
                    self._ready.append(pending)
                    self._changed.notify_all()
                    self._changed.wait_for(lambda: self._stopped or len(self._ready) < READY)
        except BaseException as error:  # noqa: BLE001 - raised again, in the main thread
            self._error = error
        finally:
            with self._changed:
                self._thread = None
                self._changed.notify_all()
