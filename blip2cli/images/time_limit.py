"""Time limit for one image: a kernel timer that ends the worker process.

It may hang in code that Python cannot interrupt: a read from a stalled network file system, a
decoder in an endless loop. A watching thread would not help, because such code may hold the
interpreter; so the limit is a timer of the kernel, whose signal ends the process.
"""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator

_MAX_SECONDS = 1e8  # seconds a kernel timer is sure to take, three years


@contextlib.contextmanager
def time_limit(seconds: float | None) -> Iterator[None]:
    """End this process, a worker, unless the block is left in time. ``None``: no limit.

    It dies of SIGALRM, which tells ``workers.WorkerWatch`` why.
    """
    if seconds is None:
        yield
        return
    signal.setitimer(signal.ITIMER_REAL, min(seconds, _MAX_SECONDS))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
