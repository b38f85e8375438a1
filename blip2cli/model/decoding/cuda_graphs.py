"""Decode steps as CUDA graphs: recorded once, then replayed with one call.

A step of a language model is hundreds of small kernels, and telling a GPU about each takes longer
than running it. Recorded, they are one thing to start. Recording needs tensors that stay where they
are, so slots are kept from batch to batch (see ``room``), one set for each shape of texts. A step
is recorded for a few numbers of slots, largest first, so that all share one pool of memory; a
smaller step works on the first rows of the same tensors.

Recording takes as long as some tens of steps and is done when texts of a shape come a second
time. Where it fails, the reason is kept, and steps run one kernel at a time.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from blip2cli.model.decoding.scheduler import SLOTS, Pair, Reader, Request, Shape, Slots

SIZES = (SLOTS, 32, 16, 8)  # numbers of slots whose steps are recorded
KEPT = 4  # shapes of which slots are kept: keys and values of so many texts each

Work = Callable[[], object]
# Runs work that reads and writes tensors which stay where they are, and returns what does the same
# work again.
Record = Callable[[Work], Callable[[], object]]


class FixedSlots(Slots, Protocol):
    """Slots whose tensors stay where they are."""

    def narrow(self, count: int) -> None:
        """Use the first ``count`` slots."""

    def reopen(self, reader: Any, count: int) -> None:
        """Be as new, with ``count`` slots, for another batch's images."""

    def close(self) -> None:
        """Forget the images; only ``reopen`` may follow."""


class Recorded:
    """Slots with the steps that were recorded of them."""

    def __init__(self, slots: FixedSlots, count: int, device: torch.device) -> None:
        self.slots = slots
        self.count = count
        self.tokens = torch.zeros(count, dtype=torch.long, device=device)
        self.scores: Tensor | None = None  # [count, V]
        self.replays: dict[int, Callable[[], object]] = {}  # by the number of slots, ascending

    def record(self, record: Record) -> None:
        """Record steps; what the slots held is lost."""
        first = self.slots.step(self.tokens)
        scores = torch.empty_like(first)
        replays = {}
        for size in sorted({self.count, *SIZES}, reverse=True):
            if size <= self.count:
                self.slots.narrow(size)
                replays[size] = record(self._step(size, scores))
        self.scores = scores
        self.replays = dict(sorted(replays.items()))

    def _step(self, size: int, scores: Tensor) -> Work:
        return lambda: scores[:size].copy_(self.slots.step(self.tokens[:size]))

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token a slot, [S]; return the next token's raw scores, [S, V], which the next
        step overwrites."""
        count = len(tokens)
        replay = next((self.replays[size] for size in self.replays if size >= count), None)
        if replay is None or self.scores is None:
            return self.slots.step(tokens)
        self.tokens[:count].copy_(tokens)
        replay()
        return self.scores[:count]


class Borrowed:
    """``Slots`` for one loop, given back when they are dropped."""

    def __init__(self, recorded: Recorded) -> None:
        self._recorded = recorded
        self._slots = recorded.slots

    def fill(self, slots: Sequence[int], requests: Sequence[Request]) -> list[int]:
        """See ``Slots``."""
        return self._slots.fill(slots, requests)

    def step(self, tokens: Tensor) -> Tensor:
        """See ``Slots``."""
        return self._recorded.step(tokens)

    def move(self, into: Sequence[int], origin: Sequence[int]) -> None:
        """See ``Slots``."""
        self._slots.move(into, origin)

    def keep(self, slots: Sequence[int]) -> None:
        """See ``Slots``."""
        self._slots.keep(slots)


class Graphs:
    """The kept slots of one model.

    ``failure`` says why steps are not recorded, once that has failed.
    """

    def __init__(self, record: Record) -> None:
        self.failure: str | None = None
        self._record = record
        self._kept: OrderedDict[Shape, Recorded] = OrderedDict()  # longest unused first
        self._most = KEPT
        self._alone = threading.Lock()

    def open(self, reader: Reader, shape: Shape, count: int) -> Slots:
        """``count`` empty slots: those that were kept, or new ones."""
        with self._alone:
            recorded = self._kept.pop(shape, None)
            if self.failure is not None:
                return reader.open(shape, count)
            if recorded is None or recorded.count < count:
                slots: Any = reader.open(shape, count)
                recorded = Recorded(slots, count, reader.device)
            else:
                recorded.slots.reopen(reader, recorded.count)
                if not recorded.replays:
                    self._try(recorded)
                recorded.slots.reopen(reader, count)
        borrowed = Borrowed(recorded)
        weakref.finalize(borrowed, self._give_back, shape, recorded).atexit = False
        return borrowed

    def clear(self) -> None:
        """Give up what is kept, because memory is short, and keep less from now on."""
        self._kept.clear()
        self._most = max(1, self._most // 2)

    def _try(self, recorded: Recorded) -> None:
        try:
            recorded.record(self._record)
        except Exception as error:  # noqa: BLE001 - whatever it is, there is another way
            recorded.replays = {}
            lines = str(error).strip().splitlines() or [""]
            self.failure = f"{type(error).__name__}: {lines[0]}"
            self._kept.clear()

    def _give_back(self, shape: Shape, recorded: Recorded) -> None:
        # Not under the lock: it may be the garbage collector who calls, in the middle of ``open``.
        recorded.slots.close()
        if self.failure is None:
            self._kept[shape] = recorded
            while len(self._kept) > self._most:
                self._kept.popitem(last=False)


class GraphReader:
    """A reader whose slots are kept and recorded."""

    def __init__(self, reader: Reader, graphs: Graphs) -> None:
        self._reader = reader
        self._graphs = graphs

    @property
    def device(self) -> torch.device:
        """See ``Reader``."""
        return self._reader.device

    @property
    def at_once(self) -> int:
        """See ``Reader``."""
        return self._reader.at_once

    def shape(self, request: Request) -> Shape:
        """See ``Reader``."""
        return self._reader.shape(request)

    def expect(self, pairs: Sequence[Pair]) -> None:
        """See ``Reader``."""
        self._reader.expect(pairs)

    def open(self, shape: Shape, slots: int) -> Slots:
        """See ``Reader``."""
        return self._graphs.open(self._reader, shape, slots)

    def history(self, request: Request) -> tuple[int, ...]:
        """See ``Reader``."""
        return self._reader.history(request)

    def padded(self, prompt: int, tokens: int) -> int:
        """See ``Reader``."""
        return self._reader.padded(prompt, tokens)

    def follow(self, pairs: Sequence[Pair], which: Tensor, tokens: Tensor) -> Tensor:
        """See ``Reader``."""
        return self._reader.follow(pairs, which, tokens)

    def scores(self, hidden: Tensor) -> Tensor:
        """See ``Reader``."""
        return self._reader.scores(hidden)


class CudaRecord:
    """Records on a CUDA device, into one pool of memory."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._stream: Any = None

    def __call__(self, work: Work) -> Callable[[], object]:
        """Run ``work``, record it, and return its replay; raises what torch raises."""
        with torch.cuda.device(self._device):
            if self._stream is None:
                self._pool = torch.cuda.graph_pool_handle()
                self._stream = torch.cuda.Stream()
            # Libraries set themselves up, and kernels are loaded, at a first run.
            self._stream.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(self._stream):
                work()
            torch.cuda.current_stream().wait_stream(self._stream)
            graph = torch.cuda.CUDAGraph()
            # Other threads, such as those that pin memory, may go on with what they do. After a
            # failure nothing else ever runs on this stream.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                work()
        return graph.replay
