"""Streams, events and graphs of the pretended device, under the names of ``torch.cuda``.

Each stream, and the host, has a vector clock: for every stream the time of its last operation that
this one comes after.
"""

from __future__ import annotations

import itertools
import weakref
from collections import Counter
from typing import TYPE_CHECKING, Any

from tests.pretend_operations import Refused, compute, name_of, tensors_in

if TYPE_CHECKING:
    from tests.pretend import Machine, Memory, OnDevice

Clock = dict[int, int]  # by the number of a stream: its time
numbers = itertools.count(1)  # of streams, and of memory pools
machines: list[Machine] = []  # the one that is pretended, while there is one


def here() -> Machine:
    """The machine that is pretended."""
    assert machines, "the pretended device is gone"
    return machines[-1]


def advance(clock: Clock, other: Clock) -> None:
    """Know of everything that ``other`` knows of."""
    for number, time in other.items():
        clock[number] = max(clock.get(number, 0), time)


class Stream:
    """``torch.cuda.Stream``."""

    def __init__(self, device: Any = None, priority: int = 0, **_: Any) -> None:
        self.device = here().resolve(device)
        self.number = next(numbers)
        self.clock: Clock = {self.number: 0}
        self.capturing: Graph | None = None

    def record_event(self, event: Event | None = None) -> Event:
        event = event or Event()
        event.record(self)
        return event

    def wait_event(self, event: Event) -> None:
        advance(self.clock, event.clock)

    def wait_stream(self, stream: Stream) -> None:
        advance(self.clock, stream.clock)

    def query(self) -> bool:
        return here().knows(self.clock)

    def synchronize(self) -> None:
        here().wait_for(self.clock, "Stream.synchronize")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Stream) and other.number == self.number

    def __hash__(self) -> int:
        return self.number


class Event:
    """``torch.cuda.Event``."""

    def __init__(self, *_: Any, **__: Any) -> None:
        self.clock: Clock = {}

    def record(self, stream: Stream | None = None) -> None:
        self.clock = dict((stream or here().stream()).clock)

    def wait(self, stream: Stream | None = None) -> None:
        (stream or here().stream()).wait_event(self)

    def query(self) -> bool:
        return here().knows(self.clock)

    def synchronize(self) -> None:
        here().wait_for(self.clock, "Event.synchronize")


class Graph:
    """``torch.cuda.CUDAGraph``."""

    def __init__(self, keep_graph: bool = False) -> None:
        self.operations: list[Any] = []
        self.kernels: Counter[str] = Counter()
        self.memories: list[weakref.ref[Memory]] = []  # from outside of the capture
        self.before: dict[int, tuple[Any, Any]] = {}  # what captured operations changed
        self.broken = self.ended = False
        self.handle: Any = None

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global", **_: Any) -> None:
        machine = here()
        self.stream = machine.stream()
        if self.stream is machine.default_stream():
            raise Refused("CUDA graphs must be captured on a non-default stream.")
        self.handle = pool or (0, next(numbers))
        if machine.pools.get(pool) == 0:
            raise Refused("it->second->use_count > 0 INTERNAL ASSERT FAILED")
        machine.pools[self.handle] = machine.pools.get(self.handle, 0) + 1
        machine.captures.append(self.handle)
        self.stream.capturing = self

    def capture_end(self) -> None:
        self.stream.capturing = None
        for storage, before in self.before.values():
            storage.copy_(before)
        self.before.clear()
        if self.broken:  # raised before the allocator hears that the capture is over
            raise Refused("CUDA error: operation failed due to a previous error during capture")
        here().captures.remove(self.handle)
        self.ended = True
        weakref.finalize(self, here().release, self.handle).atexit = False

    def refuse(self, what: str) -> None:
        self.broken = True
        raise Refused(f"CUDA error: operation not permitted when stream is capturing ({what})")

    def note(self, operation: tuple[Any, Any, Any, Any], memories: list[Memory]) -> None:
        """Add an operation, and what it made; one without ``memories`` is a view."""
        self.operations.append(operation)
        if memories:
            self.kernels[name_of(operation[0])] += 1
        known = {ref() for ref in self.memories}
        self.memories += [
            weakref.ref(each) for each in memories if each.graph is not self and each not in known
        ]

    def changes(self, tensor: OnDevice) -> None:
        """``tensor`` is written to, which is undone when the capture ends."""
        if tensor.memory.graph is not self:
            storage = tensor.held.untyped_storage()
            self.before.setdefault(storage._cdata, (storage, storage.clone()))

    def replay(self) -> None:
        assert self.ended
        machine = here()
        with machine.lock, machine.aside():
            memories = [ref() for ref in self.memories]
            if None in memories:
                machine.error("a graph is replayed whose memory was freed")
            alive = [memory for memory in memories if memory is not None]
            machine.order(machine.stream(self.stream.device), alive, alive)
            machine.replays += 1
            machine.replayed.update(self.kernels)
            for func, args, kwargs, made in self.operations:
                again = compute(func, args, kwargs)
                for old, new in zip(tensors_in((made,)), tensors_in((again,)), strict=True):
                    if old.data_ptr() != new.data_ptr():
                        old.copy_(new)

    def reset(self) -> None:
        self.operations.clear()

    def pool(self) -> Any:
        return self.handle


class StreamContext:
    """``torch.cuda.stream``: a class, as a capture that fails never leaves it."""

    def __init__(self, stream: Stream | None) -> None:
        self.stream = stream

    def __enter__(self) -> None:
        if self.stream is not None:
            thread, index = here().thread, self.stream.device.index
            self.before = thread.device, thread.streams.get(index)
            thread.device, thread.streams[index] = index, self.stream

    def __exit__(self, *_: object) -> None:
        if self.stream is not None:
            thread, index = here().thread, self.stream.device.index
            thread.device, before = self.before
            thread.streams[index] = before or here().default_stream(index)


class DeviceContext:
    """``torch.cuda.device``."""

    def __init__(self, device: Any) -> None:
        self.index = here().resolve(device).index

    def __enter__(self) -> None:
        self.before, here().thread.device = here().thread.device, self.index

    def __exit__(self, *_: object) -> None:
        here().thread.device = self.before
