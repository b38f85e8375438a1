"""The processes that decode images: how they are started, and how they end.

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
from collections.abc import Iterator
from multiprocessing import connection, forkserver, resource_tracker
from multiprocessing.context import BaseContext
from typing import Any

from blip2cli.images.cores import available_cores

PRELOAD = ["blip2cli.images.loader"]
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
    context.set_forkserver_preload(PRELOAD)
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

    New processes import the main module afresh, in case functions of it were sent to them. Ours
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
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    # The data loader watches its direct parent, which here is the fork server, and the server
    # lives as long as its children do: without this, a killed main process would leave all behind.
    connection.wait([sentinel])
    os._exit(1)


class DeathWatch:
    """Notices at once when a worker of a data loader iterator dies.

    A worker killed while it writes to the shared result pipe leaves half a message and a locked
    pipe, and the main process would wait for ever. So when one dies, all are ended and this
    side's copy of the pipe's writing end is closed: whoever reads then meets the end of the file.
    """

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
        for worker in self._workers:
            worker.kill()
        self._writer.close()

    def stop(self) -> None:
        """End the watch; to be called before workers are shut down in the regular way."""
        self._waker.close()
        self._thread.join()
        self._wake.close()
