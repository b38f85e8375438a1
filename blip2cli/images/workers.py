"""Worker processes that decode images: how they are started, and how they end.

Start method. ``fork`` is out: the parent has threads (BLAS, tokenizers, a progress bar, CUDA),
Python 3.12 and later warn about it, and a lock held by another thread at that moment is held for
ever in the child. ``spawn`` would import torch anew in every worker, a second of work each. So
where it exists the *fork server* is used: one helper process imports torch once, without threads,
and every worker is a cheap fork of it. It ends with this process.

Workers ignore the terminal's interrupt, because the main process decides what is still finished,
and end by themselves when the main process is gone, however it went.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import types
import warnings
from collections.abc import Iterator
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.context import BaseContext
from typing import TYPE_CHECKING, Any, cast

from blip2cli.errors import RunError, option
from blip2cli.images.pillow_blocks import reuse_blocks
from blip2cli.system.cores import available_cores

if TYPE_CHECKING:
    from blip2cli.images.load_image import ImageDataset

MAX_WORKERS = 16  # decode some 4,000 small photographs a second, more than any one device labels


def choose_workers(cores: int | None = None) -> int:
    """How many workers to start when the user gave no number.

    One core is left to the main process; with a single core, images are decoded there (0).
    """
    cores = available_cores() if cores is None else cores
    return min(cores - 1, MAX_WORKERS)


def worker_context() -> BaseContext:
    """The multiprocessing context for workers, its fork server running where there is one."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["blip2cli.images.worker_preload"])
    resource_tracker.ensure_running()  # first, because it unblocks the signals it blocked
    # The server and all its children inherit a blocked SIGINT: no worker prints a traceback on
    # ^C. One thread per library: children are forked from a process without thread pools.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        with _environment(OMP_NUM_THREADS="1", OPENBLAS_NUM_THREADS="1", MKL_NUM_THREADS="1"):
            forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
    return context


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {key: os.environ.get(key) for key in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for key, value in before.items():
            if value is None:
                os.environ.pop(key, None)
            else:
                os.environ[key] = value


@contextlib.contextmanager
def hidden_main() -> Iterator[None]:
    """Start workers without running the user's script again.

    New processes import the main module again, in case functions of it were sent to them. These
    need nothing from it, and a script without an ``if __name__ == "__main__"`` guard would start
    its work over in every worker.
    """
    main = sys.modules["__main__"]
    sys.modules["__main__"] = types.ModuleType("__main__")
    try:
        yield
    finally:
        sys.modules["__main__"] = main


def init_worker(worker_id: int) -> None:
    """Run in each worker before its first image."""
    reuse_blocks()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Whoever started us may have ignored or blocked it, and both are inherited.
    signal.signal(signal.SIGALRM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_exit_with, args=(parent.sentinel,), daemon=True).start()


def _exit_with(sentinel: int) -> None:
    # The data loader watches its direct parent, which here is the fork server, and the server
    # lives as long as its children do: without this, a killed main process would leave all behind.
    connection.wait([sentinel])
    os._exit(1)


class WorkerWatch:
    """Thread that notices at once when a worker of a data loader iterator dies.

    A worker killed while it writes to the shared result pipe leaves half a message and a locked
    pipe, and the main process would wait for ever. So when one dies, all are ended and this
    side's copy of the pipe's writing end is closed: whoever reads then meets the end of the file.
    """

    _timed_out = False

    def __init__(self, iterator: Any) -> None:
        self._workers = list(iterator._workers)
        self._writer = iterator._worker_result_queue._writer
        self._wake, self._waker = connection.Pipe(duplex=False)
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        sentinels = [worker.sentinel for worker in self._workers]
        if self._wake in connection.wait([*sentinels, self._wake]):
            return
        # Read before the end of the file is seen, so that this thread is the only one to do it:
        # the fork server gives an exit code once.
        self._timed_out = any(worker.exitcode == -signal.SIGALRM for worker in self._workers)
        for worker in self._workers:
            worker.kill()
        self._writer.close()

    def timed_out(self) -> bool:
        """Whether the worker that died exceeded its ``time_limit``; called after one has."""
        self._thread.join()
        return self._timed_out

    def stop(self) -> None:
        """End the watch; to be called before workers are shut down in the regular way."""
        self._waker.close()
        self._thread.join()
        self._wake.close()


class DeadWorkerError(Exception):
    """A worker process ended while it was needed."""

    def __init__(self, timed_out: bool) -> None:
        super().__init__("A worker process ended while it was needed.")
        self.timed_out = timed_out  # an image took longer than it may


class RunningLoader(Iterator[Any]):
    """The iterator of a torch ``DataLoader``, and the watch over its workers."""

    def __init__(
        self, dataset: ImageDataset, batches: Iterator[Any], workers: int, prefetch: int
    ) -> None:
        # Not before: listing, and decoding in this process, must not wait for torch.
        import torch
        from torch.utils.data import DataLoader

        try:
            with warnings.catch_warnings(), hidden_main():
                # More workers than cores is the user's choice; torch would warn about it.
                warnings.filterwarnings("ignore", message="This DataLoader will create")
                loader: DataLoader[Any] = DataLoader(
                    cast("Any", dataset),  # any object with __getitems__ does
                    batch_sampler=cast("Any", batches),  # any iterable does, typed as a sampler
                    num_workers=workers,
                    prefetch_factor=prefetch,
                    collate_fn=_identity,
                    worker_init_fn=init_worker,
                    multiprocessing_context=worker_context(),
                    generator=torch.Generator(),  # else it draws from the global one, the user's
                )
                self._iterator: Any = iter(loader)
        except (OSError, EOFError) as error:
            raise RunError(
                "workers",
                f"The processes that decode images cannot be started ({error})",
                f"try {option('workers')} 0",
            ) from error
        self._watch = WorkerWatch(self._iterator)

    def __next__(self) -> Any:
        try:
            return next(self._iterator)
        except RuntimeError as error:
            if "exited unexpectedly" in str(error):
                raise DeadWorkerError(self._watch.timed_out()) from error
            raise

    def close(self) -> None:
        """End the workers at once, not when the garbage collector runs."""
        self._watch.stop()
        self._iterator._shutdown_workers()


def _identity(arrays: Any) -> Any:
    return arrays
