"""Batches in several threads at once, their results in order.

The layers of a small model are too small to be shared out among cores: threads that compute one
matrix product together wait for one another after each, and most of all on a machine that has other
things to do. So on a CPU such a model runs a batch in each of several threads, with one thread of
torch's each.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

# Up to this number of threads decode their own images, beyond it processes do: one that labels with
# ``tiny`` and decodes holds the interpreter for about a fifth of its time.
MAX_DECODING_THREADS = 4

Pending = TypeVar("Pending")
Result = TypeVar("Result")


class BatchThreads(Generic[Pending, Result]):
    """``work`` on pending batches, ``count`` of them at once; 1: in the caller's own thread.

    As a context manager; leaving it waits for what is under way, whose results are dropped. What
    ``work`` raises, ``take`` raises in its turn.
    """

    def __init__(self, work: Callable[[Pending], Result], count: int) -> None:
        self._work = work
        self._count = count
        self.pending: deque[Pending | Future[Result]] = deque()  # their results were not taken
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._count > 1:
            import torch

            self._torch_threads = torch.get_num_threads()
            torch.set_num_threads(1)
            self._pool = ThreadPoolExecutor(self._count, "batch", torch.set_num_threads, (1,))
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            import torch

            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._torch_threads)

    def put(self, pending: Pending) -> None:
        """Start to work on a batch. With one thread the work is done by ``take``."""
        if self._pool is None:
            self.pending.append(pending)
        else:
            self.pending.append(self._pool.submit(self._work, pending))

    def take(self, wait: bool = False) -> Result | None:
        """The result of the oldest batch; None where it is not due yet, or no batch is pending.

        It is waited for with ``wait``, and where more batches are pending than there are threads:
        that is one, so that a thread that is done goes on at once.
        """
        oldest = self.pending[0] if self.pending else None
        if oldest is None or (
            isinstance(oldest, Future)
            and not (wait or oldest.done() or len(self.pending) > self._count)
        ):
            return None
        self.pending.popleft()
        return oldest.result() if isinstance(oldest, Future) else self._work(oldest)
