"""Worker processes that decode images: how they are started, and how they end.

Each worker is a fresh interpreter with one socket pair to this process, which nothing else shares.
``fork`` is out: this process has threads (BLAS, tokenizers, a progress bar, CUDA), and a lock held
by another thread at that moment is held for ever in the child. The start takes a fifth of a second,
because decoding needs no torch. The ways of ``multiprocessing`` and of torch's ``DataLoader`` leave
named semaphores and sockets in ``/dev/shm`` and ``TMPDIR`` when all processes are killed, and do
not work where these cannot be written; and they start interpreters that import what lies in the
current folder. Here nothing has a name, and a worker imports from where this process does.

Workers ignore the signals that end a run, because this process decides what is still finished,
and end by themselves when it is gone, however it went. They write nothing to the terminal.
"""

from __future__ import annotations

import contextlib
import os
import pickle
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import deque
from collections.abc import Iterator
from multiprocessing import spawn
from pathlib import Path

import blip2cli
from blip2cli.errors import ImageError, RunError, option
from blip2cli.images.load_image import BatchArrays, ImageLoader
from blip2cli.sources.base import ImageRef
from blip2cli.system.cores import available_cores

MAX_WORKERS = 16  # decode some 4,000 small photographs a second, more than any one device labels
_LOOK_AGAIN = 1  # seconds between two looks at a worker that is waited for
_TIMEVAL = struct.pack("ll", _LOOK_AGAIN, 0)  # the same, as the kernel takes it
_SECONDS_TO_END = 5.0  # seconds for a killed process to go; one may hang in the kernel


def choose_workers(cores: int | None = None) -> int:
    """How many workers to start when the user gave no number.

    One core is left to the main process; with a single core, images are decoded there (0).
    """
    cores = available_cores() if cores is None else cores
    return min(cores - 1, MAX_WORKERS)


def command(descriptor: int) -> list[str | bytes]:
    """The command line of a worker that serves the socket ``descriptor``.

    ``-P`` and a full path: neither the interpreter nor a module comes from the current folder.
    The names of files decode as they do here.
    """
    # The empty name is the current folder, where an interactive interpreter looks for modules.
    path = [folder for folder in sys.path if isinstance(folder, str) and folder]
    code = (
        f"import sys; sys.path[:] = {[*path, str(Path(blip2cli.__file__).parents[1])]!a}; "
        f"from blip2cli.images.worker_process import main; main({descriptor})"
    )
    return [spawn.get_executable(), "-P", "-X", f"utf8={sys.flags.utf8_mode}", "-c", code]


def environment() -> dict[str, str]:
    """The environment of a worker: this process's, with one thread for each library."""
    single = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    # ``PYTHONPATH`` may name the current folder, by an empty element; ``command`` gives the path.
    return {k: v for k, v in os.environ.items() if k != "PYTHONPATH"} | single


class DeadWorkerError(Exception):
    """A worker process ended while it was needed."""

    def __init__(self, started: bool, returncode: int) -> None:
        super().__init__("A worker process ended while it was needed.")
        self.started = started  # it was ready for images before
        self._timed_out = returncode == -signal.SIGALRM

    def of_image(self, limit: float | None) -> ImageError:
        """The error of the image that it was loading, which might take ``limit`` seconds."""
        if self._timed_out and limit is not None:
            return ImageError("timeout", f"Reading and decoding it took longer than {limit:g} s.")
        return ImageError("decoder_crashed", "Decoding it ended the decoding process.")


def cannot_start(reason: object) -> RunError:
    """The error of workers that cannot be had."""
    return RunError(
        "workers",
        f"The processes that decode images cannot be started ({reason})",
        f"try {option('workers')} 0",
    )


class Worker:
    """A process that decodes batches, and the thread that receives them from it.

    Raises OSError when it cannot be started.
    """

    def __init__(self, image_loader: ImageLoader, changed: threading.Condition) -> None:
        """``changed`` is notified of every result, and of the end of the process."""
        self.requested = 0  # batches that were sent and not yet taken back
        self.ready = False
        self.ended = False
        self._results: deque[BatchArrays] = deque()
        self._changed = changed
        self._socket, theirs = socket.socketpair()
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _TIMEVAL)
        try:
            with theirs:
                self._process = subprocess.Popen(
                    command(theirs.fileno()),
                    pass_fds=(theirs.fileno(),),
                    env=environment(),
                    stdin=subprocess.DEVNULL,
                    stdout=subprocess.DEVNULL,
                    stderr=subprocess.DEVNULL,
                )
        except BaseException:
            self._socket.close()
            raise
        try:
            self._thread = threading.Thread(target=self._receive, name="worker", daemon=True)
            self._thread.start()
        except RuntimeError:  # there can be no further thread
            self._process.kill()
            self._process.wait()
            self._socket.close()
            raise
        self._send(image_loader)

    def request(self, refs: list[ImageRef]) -> None:
        """Have a batch loaded."""
        self.requested += 1
        self._send(refs)

    def take(self) -> BatchArrays:
        """The oldest batch that was requested, waited for.

        Raises DeadWorkerError when the process ended before it was done.
        """
        with self._changed:
            while not self._results:
                if self.ended:
                    raise DeadWorkerError(self.ready, self._process.returncode)
                if not self._changed.wait(_LOOK_AGAIN):
                    self._wake()
            self.requested -= 1
            return self._results.popleft()

    def stop(self) -> None:
        """End the process at once."""
        self._process.kill()
        with contextlib.suppress(OSError):  # it is closed
            self._socket.shutdown(socket.SHUT_RDWR)  # nothing more is received

    def join(self) -> None:
        """Wait until the process is gone."""
        self._thread.join(_SECONDS_TO_END)

    def _send(self, value: object) -> None:
        left = memoryview(pickle.dumps(value, 5))
        with contextlib.suppress(OSError):  # it has ended, which ``take`` says
            while left:
                try:
                    left = left[self._socket.send(left) :]
                except BlockingIOError:  # it has taken nothing for ``_LOOK_AGAIN``
                    self._wake()

    def _receive(self) -> None:
        try:
            with self._socket.makefile("rb") as reader:
                pickle.load(reader)
                self.ready = True
                while True:
                    arrays = pickle.load(reader)
                    with self._changed:
                        self._results.append(arrays)
                        self._changed.notify_all()
        except Exception:  # noqa: BLE001 - half a message is the end of the process as well
            self._process.kill()
        self._process.wait()
        self._socket.close()
        with self._changed:
            self.ended = True
            self._changed.notify_all()

    def _wake(self) -> None:
        """Let the process go on if it alone was stopped: nobody else would."""
        with contextlib.suppress(OSError):  # it has ended
            stopped = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
            if os.waitid(os.P_PID, self._process.pid, stopped) is not None:
                self._process.send_signal(signal.SIGCONT)


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
