"""Worker processes compute, each with a device, a replica of the model and its own decoding.

This process lists, cuts batches, hands out references, takes rows and brings them into order. A
bounded number of batches is under way, so a slow worker holds up the others only once they are that
far before it. A worker that ends, or makes no progress, is started again; its batches are done by
whoever is free (see ``under_way``).
"""

from __future__ import annotations

import contextlib
import os
import queue
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Self

from blip2cli.errors import RunError, UserError, option
from blip2cli.pipeline.compute.base import NEXT_IMAGE, Ready, next_refs
from blip2cli.pipeline.compute.devices import labels
from blip2cli.pipeline.compute.replica import ReplicaSpec
from blip2cli.pipeline.compute.under_way import BatchUnderWay, Piece
from blip2cli.pipeline.compute.worker import Worker
from blip2cli.pipeline.compute.worker_process import BATCHES, Answer
from blip2cli.pipeline.events import DeviceUsed, Listener, WorkerEnded
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sources.base import ImageRef, shown_names
from blip2cli.system.cores import available_cores

if TYPE_CHECKING:
    from blip2cli.images.batches import BatchCutter
    from blip2cli.pipeline.stats import Stage
    from blip2cli.sources.readers.stdin import PathStream

_WINDOW = 2 * BATCHES  # batches under way for each worker, those that are done and wait included
_MOST_DEATHS = 5  # of a worker, one after the other, that did nothing in between
_LOOK_AGAIN = 1.0  # seconds between two looks at workers that are waited for
_PAUSED = 10.0  # more seconds than that between two looks: this process itself stood still
# A worker that loads takes this much longer than the first one before the run begins without it.
_LOADING_RATIO, _LOADING_SECONDS = 2.0, 10.0
# Seconds that loading may take, however short the limit for a batch; and a single image, before it
# is to blame: a process that decodes is started for it.
_LOADING_STALL, _SINGLE_STALL = 600.0, 20.0


class WorkerProcesses:
    """``spec`` is that of every replica but for the device; ``items`` are all references.

    ``threads`` for each operation are divided among the workers unless ``spec`` has a number.
    """

    def __init__(
        self,
        spec: ReplicaSpec,
        devices: Sequence[str],
        items: Iterator[ImageRef],
        on_event: Listener,
        stall_timeout: float,
        stdin: PathStream | None = None,
    ) -> None:
        """``stdin``: where ``items`` come from as somebody gives them, perhaps waiting for rows of
        those before."""
        cores = available_cores()
        self._threads = spec.threads or divided_threads(len(devices))
        self._spec: Any = replace(
            spec,
            threads=self._threads,
            cores=max(1, cores // len(devices)),
            sharers=len(devices),
        )
        self._items = items
        self._on_event = on_event
        self._stall_timeout = stall_timeout
        self._stdin = stdin
        self._inbox: queue.SimpleQueue[tuple[Worker, int, Any]] = queue.SimpleQueue()
        self._workers = [
            Worker(device, label, self._tell)
            for device, label in zip(devices, labels(devices), strict=True)
        ]
        self._batches: deque[BatchUnderWay] = deque()  # in order
        self._waiting: deque[Piece] = deque()  # to be given to a worker
        self._suspects: deque[Piece] = deque()  # likewise, and before those: single images
        self._agreed: Ready | None = None  # what the first worker said
        self._looked = time.monotonic()
        self._cutter: BatchCutter

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.join()
        if self._agreed is not None:
            for worker in self._workers:
                self._on_event(
                    DeviceUsed(worker.label, worker.batches, worker.images, worker.seconds)
                )

    def start(self) -> None:
        for worker in self._workers:
            self._start(worker)
        # While they import torch.
        from blip2cli.images.batches import BatchCutter

        self._cutter = BatchCutter(self._items, 0)

    def load(self) -> Ready:
        began = time.monotonic()
        seconds = float("inf")
        while True:
            ready = [worker.ready for worker in self._workers if worker.ready is not None]
            passed = time.monotonic() - began
            if ready:
                seconds = min(seconds, _LOADING_RATIO * passed + _LOADING_SECONDS)
            if ready and (
                passed > seconds
                or all(worker.ready or worker.gone or worker.deaths for worker in self._workers)
            ):
                break
            self._take_in(_LOOK_AGAIN)
        self._cutter.size = min(each.batch_size for each in ready)
        devices = ", ".join(worker.device for worker in self._workers)
        return replace(ready[0], device=devices, batch_size=self._cutter.size)

    def next_batch(self) -> Sequence[ImageRef] | None:
        """References; none when no path comes while rows may be ready."""
        return next_refs(self._cutter, self._stdin, wait=not self._batches)

    def put(self, batch: Sequence[ImageRef], /) -> None:
        if batch:
            under_way = BatchUnderWay(batch)
            self._batches.append(under_way)
            self._waiting += under_way.pieces
            self._hand_out()

    def take(self, wait: bool, /) -> ProcessedBatch | None:
        self._take_in(0)
        while self._batches:
            if self._batches[0].complete:
                return self._batches.popleft().result()
            if not wait and self._accepts:
                break
            self._take_in(_LOOK_AGAIN)
        return None

    def waiting_for(self, stage: Stage) -> str:
        """The worker that has the oldest batch, with its images."""
        if stage == "read":
            return NEXT_IMAGE
        pieces = [piece for piece in self._batches[0].pieces if piece.result is None]
        piece = pieces[0]
        names = shown_names([ref.file_name for ref in piece.refs])
        for worker in self._workers:
            if piece in worker.pieces.values():
                return f"the worker on {worker.label} (process {worker.pid}), which has {names}"
        return f"a worker that is free for {names}"

    @property
    def _accepts(self) -> bool:
        """Whether a further batch would be worked on."""
        return (
            len(self._batches) < _WINDOW * len(self._workers)
            and not self._suspects
            and not self._waiting
            and any(worker.free for worker in self._workers)
        )

    def _tell(self, worker: Worker, number: int, message: Any) -> None:
        self._inbox.put((worker, number, message))

    def _take_in(self, seconds: float) -> None:
        """Deal with what the workers sent, waiting up to ``seconds`` for it."""
        with contextlib.suppress(queue.Empty):
            self._deal_with(*self._inbox.get(timeout=seconds))
            while True:
                self._deal_with(*self._inbox.get_nowait())
        self._end_stalled()
        self._hand_out()

    def _deal_with(self, worker: Worker, number: int, message: Any) -> None:
        if number != worker.number:  # of an earlier process
            return
        worker.seen = time.monotonic()
        if isinstance(message, Answer):
            piece = worker.pieces.pop(message.number)
            piece.result = message.result
            worker.deaths = 0
            worker.batches += 1
            worker.images += len(piece.refs)
        elif isinstance(message, Ready):
            self._agree(worker, message)
        elif isinstance(message, Exception):
            # A device that turns out to be wrong when others compute does not end the run.
            if isinstance(message, UserError) and not worker.was_ready and not self._cutter.size:
                raise message
            worker.failure = message
        else:
            self._bury(worker)

    def _agree(self, worker: Worker, ready: Ready) -> None:
        """All workers have the precision of the first: by ``auto`` each might find another."""
        if self._agreed is None:
            self._agreed = ready
            model = replace(self._spec.model, dtype=ready.dtype)
            self._spec = replace(self._spec, model=model)
        if ready.dtype == self._agreed.dtype:
            worker.note_ready(ready)
        else:
            self._start(worker)

    def _start(self, worker: Worker) -> None:
        model = replace(self._spec.model, device=worker.device)
        try:
            worker.start(replace(self._spec, model=model), self._threads)
        except (OSError, RuntimeError) as error:  # RuntimeError: there can be no further thread
            worker.failure = error
            self._bury(worker)

    def _bury(self, worker: Worker) -> None:
        """Have everything that an ended worker had done again, and start it anew.

        Raises RunError when no worker is left.
        """
        how = worker.how_it_ended(f"{self._stall_timeout:g} s")
        if worker.crashed and self._spec.loader.workers is None:
            # Perhaps by an image that the decoder cannot stand: the next one is a failed image.
            self._spec = replace(self._spec, loader=replace(self._spec.loader, workers=1))
        for piece in worker.pieces.values():
            piece.redo(how, worker.killed)
        worker.pieces.clear()
        worker.deaths += 1
        worker.gone = worker.deaths == _MOST_DEATHS
        self._on_event(WorkerEnded(worker.label, how, again=not worker.gone))
        if not worker.gone:
            self._start(worker)
        elif all(each.gone for each in self._workers):
            raise RunError(
                "device",
                f"The worker processes of all devices ended again and again, the last one on "
                f"{worker.label} ({how})",
                f"the rows so far are safe, go on with {option('resume')} when the cause is "
                "removed",
            )
        else:
            worker.stop()
        given = {piece for each in self._workers for piece in each.pieces.values()}
        self._suspects = deque(
            piece
            for batch in self._batches
            for piece in batch.pieces
            if piece.single and piece.result is None and piece not in given
        )

    def _end_stalled(self) -> None:
        now = time.monotonic()
        passed, self._looked = now - self._looked, now
        for worker in self._workers:
            if passed > _PAUSED:  # stopped from a terminal, say, and the workers with it
                worker.seen += passed
            limit = self._stall_timeout
            if worker.ready is None:
                limit = max(limit, _LOADING_STALL)
            elif any(piece.single for piece in worker.pieces.values()):
                limit = max(limit, _SINGLE_STALL)
            if worker.due and now - worker.seen > limit:
                worker.end_stalled()

    def _hand_out(self) -> None:
        """Give pieces to workers that are free: single images to idle ones, before all else."""
        while True:
            if self._suspects:
                idle = [worker for worker in self._workers if worker.free and not worker.pieces]
                if not idle:
                    return
                idle[0].give(self._suspects.popleft())
            elif self._waiting:
                free = [worker for worker in self._workers if worker.free]
                if not free:
                    return
                min(free, key=lambda each: len(each.pieces)).give(self._waiting.popleft())
            else:
                return


def divided_threads(workers: int) -> int:
    """The threads of an operation in each of some workers, by what this process might have."""
    try:
        threads = int(os.environ["OMP_NUM_THREADS"].partition(",")[0])
    except (KeyError, ValueError):
        threads = available_cores()
    return max(1, threads // workers)
