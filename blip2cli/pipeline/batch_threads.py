"""Several batches under way at once, in threads, their results in order.

The layers of a small model are too small to be shared out among cores: threads that compute one
matrix product together wait for one another after each, and most of all on a machine that has other
things to do. So on a CPU such a model runs a batch in each of several threads, which compute alone.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, Self, TypeVar

# Up to so many threads decode their own images, beyond that processes do: one that labels with
# ``tiny`` and decodes holds the interpreter for about a fifth of its time.
DECODING = 4

Batch = TypeVar("Batch")
Result = TypeVar("Result")


class Lanes(Generic[Batch, Result]):
    """``work`` on batches, ``count`` of them at once; 1: in the caller's own thread.

    As a context manager; leaving it waits for what is under way, whose results are dropped. What
    ``work`` raises, ``take`` raises in its turn.
    """

    def __init__(self, work: Callable[[Batch], Result], count: int) -> None:
        self._work = work
        self._count = count
        self._pending: deque[Batch | Future[Result]] = deque()
        self._pool: ThreadPoolExecutor | None = None

    def __enter__(self) -> Self:
        if self._count > 1:
            import torch

            self._threads = torch.get_num_threads()
            torch.set_num_threads(1)
            self._pool = ThreadPoolExecutor(self._count, "lane", torch.set_num_threads, (1,))
        return self

    def __exit__(self, *exc: object) -> None:
        if self._pool is not None:
            import torch

            self._pool.shutdown(cancel_futures=True)
            torch.set_num_threads(self._threads)

    @property
    def pending(self) -> int:
        """Batches whose results were not taken."""
        return len(self._pending)

    @property
    def full(self) -> bool:
        """Whether a result is to be taken before another batch is put.

        One batch more than there are threads waits: who is done with one goes on at once.
        """
        return self.pending >= self._count + (self._pool is not None)

    @property
    def ready(self) -> bool:
        """Whether the next result is there already."""
        oldest = self._pending[0] if self._pending else None
        return isinstance(oldest, Future) and oldest.done()

    def put(self, batch: Batch) -> None:
        """Begin to work on a batch."""
        if self._pool is None:
            self._pending.append(batch)
        else:
            self._pending.append(self._pool.submit(self._work, batch))

    def take(self) -> Result:
        """The result of the oldest batch, waited for."""
        oldest = self._pending.popleft()
        return oldest.result() if isinstance(oldest, Future) else self._work(oldest)
