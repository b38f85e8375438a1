"""The worker of one device: its process, which is started anew when it ends, and what it has."""

from __future__ import annotations

import pickle
import queue
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from typing import Any, BinaryIO

from blip2cli.pipeline.compute.base import Ready
from blip2cli.pipeline.compute.under_way import Piece
from blip2cli.pipeline.compute.worker_process import BATCHES, Request
from blip2cli.system.child_process import ChildProcess

MAIN = "blip2cli.pipeline.compute.worker_process:main"


class Worker:
    """``tell`` is called, in other threads, with the worker, the number of its process and what
    that sent: None when it has ended."""

    def __init__(self, device: str, label: str, tell: Callable[[Worker, int, Any], None]) -> None:
        self.device = device
        self.label = label  # the device for people, who may have given it twice
        self.number = 0  # tells the messages of its processes apart
        self.ready: Ready | None = None
        self.was_ready = False  # a process of it was
        self.gone = False  # it is not started again
        self.deaths = 0  # of its processes, one after the other, without an answer between them
        self.pieces: dict[int, Piece] = {}  # that it was given, by the number of the request
        self.stalled = False  # it was ended for want of progress
        self.failure: Exception | None = None  # why it could not load the model
        self.seen = 0.0  # when it gave a sign of life, or was first given something; monotonic
        self.batches = self.images = 0  # that it has done
        self.seconds = 0.0  # that it was ready for, in processes before this one
        self._since = 0.0
        self._tell = tell
        self._requests = 0
        self._process: ChildProcess | None = None
        self._outbox: queue.SimpleQueue[bytes | None]

    def start(self, spec: Any, threads: int) -> None:
        """Start a process, with this number of threads for each library.

        Raises OSError or RuntimeError when that cannot be.
        """
        self.stop()
        self.number += 1
        self.ready, self.failure, self.stalled = None, None, False
        self.seen = time.monotonic()
        tell = partial(self._tell, self, self.number)
        receive, end = partial(_receive, tell), partial(tell, None)
        self._process = process = ChildProcess(MAIN, receive, end, threads)
        # What is sent waits in a thread of its own: a process that hangs must not stop this one.
        outbox: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._outbox = outbox
        threading.Thread(target=_send_all, args=(process, outbox), name="send", daemon=True).start()
        outbox.put(pickle.dumps(spec, 5))

    def note_ready(self, ready: Ready) -> None:
        """Its model is loaded."""
        self.ready, self.was_ready = ready, True
        self._since = time.monotonic()

    def give(self, piece: Piece) -> None:
        """Have a piece worked on."""
        if not self.pieces:
            self.seen = time.monotonic()
        self._requests += 1
        self.pieces[self._requests] = piece
        request = Request(self._requests, piece.refs, isolate=piece.single)
        self._outbox.put(pickle.dumps(request, 5))

    @property
    def free(self) -> bool:
        """Whether it could be given a batch. One that has a single image gets nothing else."""
        pieces = self.pieces.values()
        return (
            self.ready is not None
            and len(pieces) < BATCHES
            and not any(piece.single for piece in pieces)
        )

    @property
    def due(self) -> bool:
        """Whether a sign of life is to be expected."""
        waiting = bool(self.pieces) or self.ready is None
        return waiting and not self.gone and not self.stalled

    def end_stalled(self) -> None:
        """End its process, which is told as any end is."""
        self.stalled = True
        if self._process is not None:
            self._process.kill()

    @property
    def pid(self) -> int | None:
        """The number of its process; None: there is none."""
        return None if self._process is None else self._process.pid

    @property
    def killed(self) -> bool:
        """Whether somebody else ended its process."""
        process = self._process
        return process is not None and process.returncode == -signal.SIGKILL and not self.stalled

    @property
    def crashed(self) -> bool:
        """Whether its process ended by itself in the middle of its work."""
        return self.was_ready and self.failure is None and not self.killed and not self.stalled

    def how_it_ended(self, limit: str) -> str:
        """For people; ``limit`` is the time without progress that it may take."""
        if self.stalled:
            return f"no progress for {limit}"
        if self.failure is not None:
            return f"{type(self.failure).__name__}: {self.failure}"
        code = self._process.returncode if self._process is not None else 0
        if code >= 0:
            return f"exit status {code}"
        try:
            return f"killed by {signal.Signals(-code).name}"
        except ValueError:
            return f"killed by signal {-code}"

    def stop(self) -> None:
        """End its process at once; nothing is told of that."""
        self.number += 1
        if self.ready is not None:
            self.seconds += time.monotonic() - self._since
            self.ready = None
        if self._process is not None:
            self._process.stop()
            self._outbox.put(None)

    def join(self) -> None:
        """Wait until its process is gone."""
        if self._process is not None:
            self._process.join()


def _receive(tell: Callable[[Any], None], reader: BinaryIO) -> None:
    while True:
        tell(pickle.load(reader))


def _send_all(process: ChildProcess, outbox: queue.SimpleQueue[bytes | None]) -> None:
    while (data := outbox.get()) is not None:
        process.send_data(data)
