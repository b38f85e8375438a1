"""Capture of decode steps as CUDA graphs, and what is done where it fails.

A step is captured on a stream of its own, into a memory pool that all graphs share. No memory is
given back before a capture and nothing waits for it, so it takes little longer than the step. What
``torch.cuda.graph`` leaves behind when a capture fails (its stream as the current one, and before
torch 2.12 an allocator that takes the capture to go on) is put right.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import torch

from blip2cli.system.memory import is_exhaustion

Work = Callable[[], object]  # reads and writes tensors which stay where they are
Replay = Callable[[], object]  # does the same work again
Result = TypeVar("Result")

LONGEST_PAUSE = 64  # slots that are opened between two attempts where memory is short


@dataclass(frozen=True)
class CapturePolicy:
    """When a step is captured, and how many graphs are cached."""

    first: int = 64  # slots: captured at their first step, as the number of all slots is
    on_demand: int = 16  # steps of any other size that a larger one serves before it is captured
    uncaptured: int = 8  # steps of a shape that comes for the first time before any is captured
    cached: int = 32  # slot shapes whose graphs are cached


POLICY = CapturePolicy()


class Capture(Protocol):
    """Captures work on a device: ``CudaGraphCapture``."""

    def run(self, work: Work) -> None:
        """Do the work where it is captured next: libraries set themselves up, and kernels are
        loaded, when they run for the first time."""

    def capture(self, work: Work) -> Replay:
        """Capture the work without doing it, and return its replay; raises what torch raises."""


class CaptureAttempts:
    """Captures steps as long as that works.

    A failure ends it for good, and ``failure`` says why. Where memory was short it is tried again
    for other batches, ever more seldom.
    """

    def __init__(self, capture: Capture, failure: str | None = None) -> None:
        self.failure = failure
        self.run, self.capture = capture.run, capture.capture
        self._shortages = 0  # of memory, one after the other
        self._pause = 0  # slots that are opened before the next attempt

    @property
    def are_due(self) -> bool:
        """Whether steps are to be captured now."""
        return self.failure is None and not self._pause

    def count_opening(self) -> None:
        """Note that slots are opened."""
        self._pause = max(0, self._pause - 1)

    def attempt(self, work: Callable[[], Result]) -> Result | None:
        """The result of what a capture needs, or of the capture itself; None: that failed."""
        try:
            result = work()
        except Exception as error:  # noqa: BLE001 - whatever it is, steps run without
            if is_exhaustion(error):
                self._pause = min(1 << self._shortages, LONGEST_PAUSE)
                self._shortages += 1
            else:
                lines = str(error).strip().splitlines() or [""]
                self.failure = f"{type(error).__name__}: {lines[0]}"
            return None
        self._shortages = 0
        return result


class CudaGraphCapture:
    """Captures work as graphs on a CUDA device, in one memory pool."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._stream: Any = None
        self._graphs: weakref.WeakSet[torch.cuda.CUDAGraph] = weakref.WeakSet()
        # torch's allocator of pinned memory may go on asking a graph whether it is being captured.
        self._broken: list[torch.cuda.CUDAGraph] = []

    def run(self, work: Work) -> None:
        """See ``Capture``."""
        with self._own_stream():
            work()

    def capture(self, work: Work) -> Replay:
        """See ``Capture``."""
        try:
            return self._captured(work)
        except RuntimeError as error:
            if not is_exhaustion(error):
                raise
        # During a capture torch's allocator gives nothing back of what it holds for reuse.
        torch.cuda.empty_cache()
        return self._captured(work)

    def _captured(self, work: Work) -> Replay:
        if not self._graphs:
            # A pool ends with the last of its graphs, and torch refuses to take it again.
            self._pool = torch.cuda.graph_pool_handle()
        graph = torch.cuda.CUDAGraph()
        with self._own_stream(), _no_garbage_collection():
            try:
                # Other threads, such as those that pin memory, may go on.
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                work()
            except BaseException:
                with suppress(RuntimeError):
                    self._end(graph)
                raise
            self._end(graph)
        self._graphs.add(graph)
        return graph.replay

    def _end(self, graph: torch.cuda.CUDAGraph) -> None:
        try:
            graph.capture_end()
        except RuntimeError:
            self._broken.append(graph)
            self._stream = None  # nothing else ever runs on it
            # Newer versions of torch have done it, and say so by an error.
            with suppress(RuntimeError):
                torch._C._cuda_endAllocateToPool(torch.cuda.current_device(), self._pool)
            raise

    @contextmanager
    def _own_stream(self) -> Iterator[None]:
        """Inside, work goes to the stream of captures, in its turn."""
        with torch.cuda.device(self._device):
            current = torch.cuda.current_stream()
            stream = self._stream = self._stream or torch.cuda.Stream()
            stream.wait_stream(current)
            try:
                with torch.cuda.stream(stream):
                    yield
            finally:
                if self._stream is stream:
                    current.wait_stream(stream)


@contextmanager
def _no_garbage_collection() -> Iterator[None]:
    """Garbage may hold graphs and events, whose end would break a capture."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
