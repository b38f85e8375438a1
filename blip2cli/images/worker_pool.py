"""Worker processes that decode images: how they are chosen, given work, and found dead.

They are started as ``system.child_process`` says, which takes a fifth of a second, because decoding
needs no torch.
"""

from __future__ import annotations

import pickle
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from typing import BinaryIO

from blip2cli.errors import ImageError, RunError, option
from blip2cli.images.load_image import BatchArrays, ImageLoader, LoadedImage
from blip2cli.sources.base import ImageRef, shown_names
from blip2cli.system.child_process import ChildProcess
from blip2cli.system.cores import available_cores

MAX_WORKERS = 16  # decode some 4,000 small photographs a second, more than any one device labels
_LOOK_AGAIN = 1.0  # seconds between two looks at a worker that is waited for


def choose_workers(cores: int | None = None) -> int:
    """How many workers to start when the user gave no number.

    One core is left to the main process; with a single core, images are decoded there (0).
    """
    cores = available_cores() if cores is None else cores
    return min(cores - 1, MAX_WORKERS)


class DeadWorkerError(Exception):
    """A worker process ended while it was needed."""

    def __init__(self, started: bool, returncode: int) -> None:
        super().__init__("A worker process ended while it was needed.")
        self.started = started  # it was ready for images before
        self._timed_out = returncode == -signal.SIGALRM

    def failed(self, ref: ImageRef, limit: float | None) -> LoadedImage:
        """The image that it was loading, which might take ``limit`` seconds."""
        error = ImageError("decoder_crashed", "Decoding it ended the decoding process.")
        if self._timed_out and limit is not None:
            error = ImageError("timeout", f"Reading and decoding it took longer than {limit:g} s.")
        return LoadedImage(ref.file_name, None, None, error, ref.carried)


def cannot_start(reason: object) -> RunError:
    """The error of workers that cannot be had."""
    return RunError(
        "workers",
        f"The processes that decode images cannot be started ({reason})",
        f"try {option('workers')} 0",
    )


class Worker:
    """A process that decodes batches.

    Raises OSError or RuntimeError when it cannot be started.
    """

    def __init__(self, image_loader: ImageLoader, changed: threading.Condition) -> None:
        """``changed`` is notified of every result, and of the end of the process."""
        self.requested = 0  # batches that were sent and not yet taken back
        self.ready = False
        self.ended = False
        self._results: deque[BatchArrays] = deque()
        self._changed = changed
        main = "blip2cli.images.worker_process:main"
        self._process = ChildProcess(main, self._receive, self._note_end)
        self._process.send(image_loader)

    @property
    def pid(self) -> int:
        """The number of the process."""
        return self._process.pid

    def request(self, refs: list[ImageRef]) -> None:
        """Have a batch loaded."""
        self.requested += 1
        self._process.send(refs)

    def take(self) -> BatchArrays:
        """The oldest batch that was requested, waited for.

        Raises DeadWorkerError when the process ended before it was done.
        """
        with self._changed:
            while not self._results:
                if self.ended:
                    raise DeadWorkerError(self.ready, self._process.returncode)
                if not self._changed.wait(_LOOK_AGAIN):
                    self._process.wake()
            self.requested -= 1
            return self._results.popleft()

    def stop(self) -> None:
        """End the process at once."""
        self._process.stop()

    def join(self) -> None:
        """Wait until the process is gone."""
        self._process.join()

    def _receive(self, reader: BinaryIO) -> None:
        pickle.load(reader)
        self.ready = True
        while True:
            arrays = pickle.load(reader)
            with self._changed:
                self._results.append(arrays)
                self._changed.notify_all()

    def _note_end(self) -> None:
        with self._changed:
            self.ended = True
            self._changed.notify_all()


class WorkerPool(Iterator[BatchArrays]):
    """Workers, and the batches they are given: results come in the order of ``batches``.

    Each worker has up to ``prefetch`` batches under way; none is taken from ``batches`` before the
    first result is asked for. Raises RunError when the workers cannot be started.
    """

    def __init__(
        self,
        image_loader: ImageLoader,
        batches: Iterator[list[ImageRef]],
        workers: int,
        prefetch: int,
    ) -> None:
        self._batches = batches
        self._most = workers * prefetch
        self._workers: list[Worker] = []
        self._due: deque[Worker] = deque()  # by whom each batch under way is loaded, in order
        changed = threading.Condition()
        try:
            for _ in range(workers):
                self._workers.append(Worker(image_loader, changed))
        except (OSError, RuntimeError) as error:  # RuntimeError: there can be no further thread
            self.close()
            raise cannot_start(error) from error

    @property
    def ready(self) -> bool:
        """Whether every worker has started."""
        return all(worker.ready for worker in self._workers)

    def waiting_for(self, pending: Sequence[Sequence[ImageRef]]) -> str | None:
        """The worker with the next batch, the first of ``pending``; None: none was requested.

        Raises IndexError when it has just come.
        """
        if not self._due:
            return None
        names = [ref.file_name for ref in pending[0]] if pending else []
        worker = f"worker process {self._due[0].pid}"
        return f"{worker}, which loads {shown_names(names)}" if names else worker

    @property
    def failed(self) -> bool:
        """Whether a worker has ended before it was ready."""
        return any(worker.ended and not worker.ready for worker in self._workers)

    def __next__(self) -> BatchArrays:
        """Raises DeadWorkerError when the worker with the next batch ended."""
        while len(self._due) < self._most:
            refs = next(self._batches, None)
            if refs is None:
                break
            worker = min(self._workers, key=lambda worker: worker.requested)
            self._due.append(worker)
            worker.request(refs)
        if not self._due:
            raise StopIteration
        arrays = self._due[0].take()
        self._due.popleft()
        return arrays

    def close(self) -> None:
        """End the workers at once, not when the garbage collector runs."""
        for worker in self._workers:
            worker.stop()
        for worker in self._workers:
            worker.join()
        self._workers.clear()
