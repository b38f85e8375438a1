"""CUDA graphs: decode steps captured once, then replayed with one launch.

A decode step is hundreds of small kernels, and launching each takes longer than running it.
Captured as a graph, they take one launch. Capture needs tensors that stay where they are, so slots
are reused from batch to batch (see ``slot_buffers``), one set for each slot shape. A step is
captured for a few numbers of slots, largest first, so that all share one memory pool; a smaller
step works on the first rows of the same tensors.

Capture takes as long as some tens of steps and is done when a slot shape comes a second time. Where
it fails, the reason is stored, and steps are launched one kernel at a time.
"""

from __future__ import annotations

import threading
import weakref
from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from blip2cli.model.decoding.kv_slots import KVSlots, SlotShape
from blip2cli.model.decoding.requests import DecodeRequest, ImagePrompt
from blip2cli.model.decoding.scheduler import MAX_SLOTS
from blip2cli.model.decoding.session import DecoderSession

SIZES = (MAX_SLOTS, 32, 16, 8)  # numbers of slots whose steps are captured
CACHED = 4  # slot shapes whose slots are cached: keys and values of as many sequences each

Work = Callable[[], object]  # reads and writes tensors which stay where they are
Replay = Callable[[], object]  # does the same work again
Capture = Callable[[Work], Replay]  # runs work once and returns its replay: ``CudaGraphCapture``


class ReusableSlots(KVSlots, Protocol):
    """Slots that other batches may use after one another; their tensors stay where they are."""

    def use_first(self, count: int) -> None:
        """Use the first ``count`` slots."""

    def reset(self, session: Any, count: int) -> None:
        """Be as new, with ``count`` slots, for the images of ``session``."""

    def release(self) -> None:
        """Drop the images; only ``reset`` may follow."""


class CachedSlots:
    """Slots of the cache, with the CUDA graphs of their decode steps once those are captured."""

    def __init__(self, slots: ReusableSlots, count: int, device: torch.device) -> None:
        self.slots = slots
        self.count = count
        self.tokens = torch.zeros(count, dtype=torch.long, device=device)
        self.logits: Tensor | None = None  # [count, V]
        # By the number of slots, ascending; empty: not captured.
        self.replays: dict[int, Replay] = {}

    def capture_steps(self, capture: Capture) -> None:
        """Capture steps; what the slots held is lost."""
        first = self.slots.decode_step(self.tokens)
        logits = torch.empty_like(first)
        replays = {}
        for size in sorted({self.count, *SIZES}, reverse=True):
            if size <= self.count:
                self.slots.use_first(size)
                replays[size] = capture(self._step(size, logits))
        self.logits = logits
        self.replays = dict(sorted(replays.items()))

    def _step(self, size: int, logits: Tensor) -> Work:
        return lambda: logits[:size].copy_(self.slots.decode_step(self.tokens[:size]))

    def decode_step(self, tokens: Tensor) -> Tensor:
        """Feed one token a slot, [S]; returns the logits of the next tokens, [S, V], which the
        next step overwrites."""
        count = len(tokens)
        replay = next((self.replays[size] for size in self.replays if size >= count), None)
        if replay is None or self.logits is None:
            return self.slots.decode_step(tokens)
        self.tokens[:count].copy_(tokens)
        replay()
        return self.logits[:count]


class _LentSlots:
    """``KVSlots`` for one scheduler, given back to the cache when they are dropped."""

    def __init__(self, cached: CachedSlots) -> None:
        slots = cached.slots
        self.decode_step = cached.decode_step
        self.prefill, self.reorder, self.compact = slots.prefill, slots.reorder, slots.compact


class CudaGraphCache:
    """The cached slots of one model, with the CUDA graphs of their decode steps.

    ``failure`` says why steps are not captured, once that has failed.
    """

    def __init__(self, capture: Capture) -> None:
        self.failure: str | None = None
        self._capture = capture
        self._cached: OrderedDict[SlotShape, CachedSlots] = OrderedDict()  # longest unused first
        self._most = CACHED
        self._lock = threading.Lock()

    def open_slots(self, session: DecoderSession, shape: SlotShape, count: int) -> KVSlots:
        """``count`` empty slots: cached ones, or new ones."""
        with self._lock:
            cached = self._cached.pop(shape, None)
            if self.failure is not None:
                return session.open_slots(shape, count)
            if cached is None or cached.count < count:
                slots: Any = session.open_slots(shape, count)
                cached = CachedSlots(slots, count, session.device)
            else:
                # All of them: steps are captured with all, and a replay may run more than
                # ``count``. Capture spoils what they hold, so they are reset again.
                cached.slots.reset(session, cached.count)
                if not cached.replays:
                    self._try_to_capture(cached)
                cached.slots.reset(session, count)
        lent = _LentSlots(cached)
        weakref.finalize(lent, self._give_back, shape, cached).atexit = False
        return lent

    def clear(self) -> None:
        """Free the cached slots, because memory is short, and cache fewer from now on."""
        self._cached.clear()
        self._most = max(1, self._most // 2)

    def _try_to_capture(self, cached: CachedSlots) -> None:
        try:
            cached.capture_steps(self._capture)
        except Exception as error:  # noqa: BLE001 - whatever it is, steps run without
            cached.replays = {}
            lines = str(error).strip().splitlines() or [""]
            self.failure = f"{type(error).__name__}: {lines[0]}"
            self._cached.clear()

    def _give_back(self, shape: SlotShape, cached: CachedSlots) -> None:
        # Not under the lock: the garbage collector may call this within ``open_slots``.
        cached.slots.release()
        if self.failure is None:
            self._cached[shape] = cached
            while len(self._cached) > self._most:
                self._cached.popitem(last=False)


class CudaGraphSession:
    """A ``DecoderSession`` whose slots come from a ``CudaGraphCache``."""

    def __init__(self, session: DecoderSession, graphs: CudaGraphCache) -> None:
        self._session = session
        self._graphs = graphs

    @property
    def device(self) -> torch.device:
        return self._session.device

    @property
    def slot_limit(self) -> int:
        return self._session.slot_limit

    @property
    def streamed_slots(self) -> int:
        return 0  # addresses of weights that come and go cannot be captured

    def slot_shape(self, request: DecodeRequest) -> SlotShape:
        return self._session.slot_shape(request)

    def will_prefill(self, prompts: Sequence[ImagePrompt]) -> None:
        self._session.will_prefill(prompts)

    def forget_announced(self) -> None:
        self._session.forget_announced()

    def open_slots(self, shape: SlotShape, count: int) -> KVSlots:
        return self._graphs.open_slots(self._session, shape, count)

    def input_ids(self, request: DecodeRequest) -> tuple[int, ...]:
        return self._session.input_ids(request)

    def padded_length(self, prompt_length: int, length: int) -> int:
        return self._session.padded_length(prompt_length, length)

    def continuation_states(
        self, prompts: Sequence[ImagePrompt], rows: Tensor, tokens: Tensor
    ) -> Tensor:
        return self._session.continuation_states(prompts, rows, tokens)

    def logits(self, hidden: Tensor) -> Tensor:
        return self._session.logits(hidden)


class CudaGraphCapture:
    """Captures work as graphs on a CUDA device, in one memory pool."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._pool: Any = None
        self._stream: Any = None

    def __call__(self, work: Work) -> Replay:
        """Run ``work``, capture it, and return its replay; raises what torch raises."""
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
            # Other threads, such as those that pin memory, may go on. After a failure nothing else
            # ever runs on this stream.
            with torch.cuda.graph(
                graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"
            ):
                work()
        return graph.replay
