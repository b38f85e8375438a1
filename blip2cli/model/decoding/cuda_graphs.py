"""CUDA graphs: decode steps captured once, then replayed with one launch.

A decode step is hundreds of small kernels, and launching each takes longer than running it.
Captured as a graph, they take one launch. Capture needs tensors that stay where they are, so slots
are reused from batch to batch. Those of all shapes are views of one memory (see ``slot_arena``):
one shape is in use at a time, and many can be cached. Where a shape needs more than there is, a
larger memory takes its place, and steps are captured anew.

A step is captured in its turn, behind a first run that is the step itself, once a shape comes a
second time or has had a few steps: a capture takes as long as two or three of them. It is captured
for a few numbers of slots; a smaller step works on the first rows of the same tensors. The whole
number and ``CapturePolicy.first`` serve all steps from then on, others are captured when they have
been asked for often. Where capture fails, the reason is stored, and steps are launched one kernel
at a time.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter, OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import torch
from torch import Tensor

from blip2cli.model.decoding.cuda_capture import (
    POLICY,
    Capture,
    CaptureAttempts,
    CapturePolicy,
    Replay,
)
from blip2cli.model.decoding.kv_slots import KVSlots, SlotShape
from blip2cli.model.decoding.requests import DecodeRequest, ImagePrompt
from blip2cli.model.decoding.scheduler import MAX_SLOTS
from blip2cli.model.decoding.session import DecoderSession
from blip2cli.model.decoding.slot_arena import Allocate, Numbers, SlotArena, numbers_of
from blip2cli.model.layers.linear import ROW_MULTIPLE

SIZES = (8, 16, 32, 64, 128, 256)  # numbers of slots whose steps are captured


class ReusableSlots(KVSlots, Protocol):
    """Slots that other batches may use after one another; their tensors stay where they are."""

    def use_first(self, count: int) -> None:
        """Use the first ``count`` slots."""

    def reset(self, session: Any, count: int) -> None:
        """Be as new, with ``count`` slots, for the images of ``session``."""

    def release(self) -> None:
        """Drop the images; only ``reset`` may follow."""


@dataclass
class StepTensors:
    """What steps of all shapes read and write beside their slots."""

    tokens: Tensor  # [S]
    logits: Tensor | None = None  # [S, V], when a step is captured
    like: Tensor | None = None  # [0, V], in their precision, once there was a step

    def allocate_logits(self) -> Tensor:
        """Memory for them."""
        assert self.like is not None
        return self.like.new_empty(len(self.tokens), self.like.shape[1])


class CachedSlots:
    """Slots of one shape with the CUDA graphs of their decode steps."""

    def __init__(
        self,
        slots: ReusableSlots,
        count: int,
        tensors: StepTensors,
        attempts: CaptureAttempts,
        policy: CapturePolicy,
    ) -> None:
        self.slots = slots
        self.count = count
        self.captures = False  # whether this shape has come before
        self.replays: dict[int, Replay] = {}  # by the number of slots
        self._sizes = [*(size for size in SIZES if size < count), count]
        self._asked: Counter[int] = Counter()  # steps that were not captured, by size
        self._steps = 0  # that were not replayed
        self._tensors = tensors
        self._attempts = attempts
        self._policy = policy

    def decode_step(self, tokens: Tensor) -> Tensor:
        """Feed one token a slot, [S]; returns the logits of the next tokens, [S, V], which the
        next step overwrites."""
        count = len(tokens)
        size = next(size for size in self._sizes if size >= count)
        larger = (each for each in self._sizes if each >= size and each in self.replays)
        replay = self.replays.get(next(larger, 0))
        stable = self._tensors
        if self._captures_now(size, replay):
            return self._captured_step(tokens, size)
        if replay is None or stable.logits is None:
            logits = self.slots.decode_step(tokens)
            if stable.like is None:
                stable.like = logits.new_empty(0, logits.shape[1])
            return logits
        stable.tokens[:count].copy_(tokens)
        replay()
        return stable.logits[:count]

    def _captures_now(self, size: int, replay: Replay | None) -> bool:
        """Whether a step of ``size`` slots is to be captured; ``replay`` could serve it."""
        if size in self.replays or not self._attempts.are_due:
            return False
        self._steps += 1
        policy = self._policy
        if self._tensors.like is None or (not self.captures and self._steps <= policy.uncaptured):
            return False
        self._asked[size] += 1
        return replay is None or size == policy.first or self._asked[size] > policy.on_demand

    def _captured_step(self, tokens: Tensor, size: int) -> Tensor:
        """Do a step with ``size`` slots, and capture it for the next time."""
        count, slots, stable = len(tokens), self.slots, self._tensors
        if stable.logits is None:
            stable.logits = self._attempts.attempt(stable.allocate_logits)
        if stable.logits is None:
            return slots.decode_step(tokens)
        fed, logits = stable.tokens[:size], stable.logits[:size]
        fed[:count].copy_(tokens)

        def work() -> None:
            logits.copy_(slots.decode_step(fed))

        slots.use_first(size)
        try:
            self._attempts.run(work)
            replay = self._attempts.attempt(partial(self._attempts.capture, work))
        finally:
            slots.use_first(count)
        if replay is not None:
            self.replays[size] = replay
        elif self._attempts.failure is not None:
            self.replays.clear()
        return logits[:count]


@dataclass
class _Memory:
    """The memory of all shapes, with their slots."""

    arena: SlotArena
    tensors: StepTensors
    shapes: OrderedDict[SlotShape, CachedSlots] = field(default_factory=OrderedDict)  # by last use
    lent: bool = False

    def slots(self, numbers: Numbers, count: int) -> int:
        """How many slots of a shape fit, of which ``count`` take ``numbers``."""
        return min(len(self.tensors.tokens), self.arena.slots(numbers, count))


class _LentSlots:
    """``KVSlots`` for one scheduler, given back to the cache when they are dropped."""

    def __init__(self, cached: CachedSlots) -> None:
        slots = cached.slots
        self.decode_step = cached.decode_step
        self.prefill, self.reorder, self.compact = slots.prefill, slots.reorder, slots.compact


class CudaGraphCache:
    """The cached slots of one model, with the CUDA graphs of their decode steps.

    ``max_slots`` are opened at once, at most. ``failure`` says why steps are not captured, if that
    is known beforehand.
    """

    def __init__(
        self,
        capture: Capture,
        max_slots: int = MAX_SLOTS,
        failure: str | None = None,
        policy: CapturePolicy = POLICY,
    ) -> None:
        self.max_slots = max_slots
        self._policy = policy
        self._attempts = CaptureAttempts(capture, failure)
        self._memory: _Memory | None = None
        self._seen: set[SlotShape] = set()
        self._lock = threading.Lock()

    @property
    def failure(self) -> str | None:
        """Why steps are not captured; None: they are."""
        return self._attempts.failure

    def open_slots(self, session: DecoderSession, shape: SlotShape, count: int) -> KVSlots:
        """``count`` empty slots: cached ones, or new ones where those are in use."""
        with self._lock:
            if self.failure is not None:
                self._memory = None
            if self.failure is not None or (self._memory is not None and self._memory.lent):
                return session.open_slots(shape, count)
            self._attempts.count_opening()
            memory = self._memory_for(session, shape, count)
            cached = memory.shapes[shape]
            memory.shapes.move_to_end(shape)
            while len(memory.shapes) > self._policy.cached:
                memory.shapes.popitem(last=False)
            cached.captures = shape in self._seen
            self._seen.add(shape)
            cached.slots.reset(session, count)
            memory.lent = True
        lent = _LentSlots(cached)
        weakref.finalize(lent, _give_back, memory, cached).atexit = False
        return lent

    def clear(self) -> None:
        """Free the cached slots, because memory is short, and open fewer from now on."""
        self._memory = None
        self.max_slots = max(min(self.max_slots, MAX_SLOTS), self.max_slots // 2)

    def _memory_for(self, session: DecoderSession, shape: SlotShape, count: int) -> _Memory:
        """The memory, with ``count`` slots of ``shape`` at least."""
        memory = self._memory
        if memory is not None and shape in memory.shapes and memory.shapes[shape].count >= count:
            return memory
        needed = numbers_of(partial(session.open_slots, shape, count))
        if memory is None or memory.slots(needed, count) < count:
            size = needed if memory is None else memory.arena.larger(needed)
            self._memory = memory = None  # freed before more is taken
            most = max(self.max_slots, count)
            tokens = torch.zeros(most, dtype=torch.long, device=session.device)
            memory = self._memory = _Memory(SlotArena(size), StepTensors(tokens))
        # More slots than are asked for take nothing more, and other batches may need them.
        fitting = memory.slots(needed, count)
        most = max(count, fitting - fitting % ROW_MULTIPLE)
        slots: Any = session.open_slots(shape, most, memory.arena.allocate())
        memory.shapes[shape] = CachedSlots(
            slots, most, memory.tensors, self._attempts, self._policy
        )
        return memory


def _give_back(memory: _Memory, cached: CachedSlots) -> None:
    # The garbage collector may call this at any time, also within ``open_slots``.
    cached.slots.release()
    memory.lent = False


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
        return min(self._session.slot_limit or self._graphs.max_slots, self._graphs.max_slots)

    @property
    def streamed_slots(self) -> int:
        return 0  # addresses of weights that come and go cannot be captured

    def slot_shape(self, request: DecodeRequest) -> SlotShape:
        return self._session.slot_shape(request)

    def will_prefill(self, prompts: Sequence[ImagePrompt]) -> None:
        self._session.will_prefill(prompts)

    def forget_announced(self) -> None:
        self._session.forget_announced()

    def open_slots(self, shape: SlotShape, count: int, allocate: Allocate = torch.zeros) -> KVSlots:
        return self._graphs.open_slots(self._session, shape, count)

    def input_ids(self, request: DecodeRequest) -> tuple[int, ...]:
        return self._session.input_ids(request)

    def padded_length(self, prompt_length: int, length: int) -> int:
        return self._session.padded_length(prompt_length, length)

    def continuation_states(self, *arguments: Any) -> Tensor:
        return self._session.continuation_states(*arguments)

    def logits(self, hidden: Tensor) -> Tensor:
        return self._session.logits(hidden)
