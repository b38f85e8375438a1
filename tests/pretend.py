"""A pretended CUDA device, for a torch that has none.

Tensors say that they lie on ``cuda:N``; their numbers are in the memory of the host, and the CPU's
kernels compute with them. What a device refuses or punishes is checked on the way:

* devices: the operands of an operation lie on one device, but for single numbers and indices;
* waits: every operation that makes the host wait for the device is noted, with its line;
* order: each stream, and the host, has a vector clock. It is an error when a stream uses what
  another one wrote without having waited for it; when the host writes to pinned memory that is
  being copied; and when memory is freed that a stream may use which it was not recorded for. What
  is copied to the host asynchronously arrives when the host has waited for it, not before;
* graphs: what is captured does not run, what waits is refused meanwhile, and a refused capture
  leaves the allocator and the current stream as torch leaves them. A replay repeats the operations
  on the same memory, which must not have been freed;
* memory: beyond the capacity there is ``torch.OutOfMemoryError``.

``with pretended() as machine: ...``; then ``machine.errors`` and the counts beside it. Threads that
are started inside see the device as well. ``docs/development/gpu.md`` says what this proves and
what it cannot.
"""

from __future__ import annotations

import contextlib
import functools
import os
import sys
import threading
import weakref
from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any, NamedTuple
from unittest import mock

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

import blip2cli
from blip2cli.images import preprocess
from tests.pretend_guard import device_guard, what_is_missing
from tests.pretend_operations import (
    INDEXING,
    WAITING,
    Refused,
    aten,
    compute,
    is_composite,
    mapped,
    name_of,
    refuse_kernels,
    tensors_in,
    written,
)
from tests.pretend_streams import (
    Clock,
    DeviceContext,
    Event,
    Graph,
    Stream,
    StreamContext,
    advance,
    here,
    machines,
    numbers,
)

__all__ = ["Machine", "Refused", "pretended", "running", "what_is_missing"]

PACKAGE = os.path.dirname(blip2cli.__file__) + os.sep
GARBAGE = 7  # stands where an asynchronous copy has not arrived yet


class Wait(NamedTuple):
    """The host waits for the device."""

    what: str
    line: str  # of the project
    within: frozenset[str]  # functions of the project that were running


class Memory:
    """One allocation on a device."""

    def __init__(self, stream: Stream, graph: Graph | None) -> None:
        self.stream = stream  # that it was allocated for
        self.graph = graph  # in whose capture it was
        self.written = stream.number, 0  # last, by which stream and when
        self.used: Clock = {}
        self.recorded: set[int] = set()  # numbers of streams


class OnDevice(Tensor):
    """A tensor that says it lies on a device."""

    held: Tensor
    memory: Memory

    @staticmethod
    def __new__(cls, held: Tensor, memory: Memory) -> OnDevice:
        made = Tensor._make_wrapper_subclass(
            cls,
            held.shape,
            strides=held.stride(),
            storage_offset=held.storage_offset(),
            dtype=held.dtype,
            device=memory.stream.device,
        )
        made.held, made.memory = held, memory
        return made

    __torch_function__ = torch._C._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with here():
            return func(*args, **(kwargs or {}))

    def tolist(self) -> Any:
        return self.cpu().tolist()

    def numpy(self, **_: Any) -> Any:
        raise TypeError(f"can't convert {self.device} device type tensor to numpy.")

    def record_stream(self, stream: Stream) -> None:
        self.memory.recorded.add(stream.number)

    def is_pinned(self, *_: Any) -> bool:
        return False

    def data_ptr(self) -> int:
        return self.held.data_ptr()

    def __repr__(self, **_: Any) -> str:
        return f"OnDevice({self.held!r}, device={self.device})"


def held(tensor: Tensor) -> Tensor:
    """The numbers of a tensor, on the CPU."""
    return tensor.held if isinstance(tensor, OnDevice) else tensor


class _Thread(threading.local):
    """What each thread has for itself."""

    def __init__(self) -> None:
        self.device = 0
        self.streams: dict[int, Stream] = {}  # current ones that are not the default
        self.aside = False


class Machine(TorchDispatchMode):
    """The host with its devices, as a mode that sees every operation."""

    kind = "cuda"

    def __init__(self, devices: int = 1, capacity: int = 80 << 30) -> None:
        super().__init__()
        self.devices = devices
        self.capacity = capacity  # bytes, of all devices together
        self.allocated = self.peak = 0  # bytes
        self.kernels: Counter[str] = Counter()  # launched, by operation
        self.replayed: Counter[str] = Counter()  # those in graphs
        self.replays = 0
        self.waits: list[Wait] = []  # that an operation brings with it
        self.asked: list[Wait] = []  # that were asked for
        self.errors: list[str] = []
        self.host: Clock = {}
        self.lock = threading.RLock()
        self.thread = _Thread()
        self.defaults: dict[int, Stream] = {}
        self.captures: list[Any] = []  # pools of those under way
        self.pools: dict[Any, int] = {}  # uses
        self.memories: weakref.WeakValueDictionary[int, Memory] = weakref.WeakValueDictionary()
        self.pinned: dict[int, tuple[Tensor, Clock]] = {}  # by storage; who reads it until when
        self.arriving: list[tuple[Clock, Tensor, Tensor]] = []  # when, into what, which numbers
        self.held = torch.device("cpu")  # or "meta": shapes without numbers
        self.refuse = refuse_kernels

    # Streams and time

    def resolve(self, device: Any) -> torch.device:
        index = device if isinstance(device, int) else None
        if device is not None and index is None:
            index = torch.device(device).index
        return torch.device(self.kind, self.thread.device if index is None else index)

    def default_stream(self, device: Any = None) -> Stream:
        device = self.resolve(device)
        if device.index not in self.defaults:
            self.defaults[device.index] = Stream(device)
        return self.defaults[device.index]

    def stream(self, device: Any = None) -> Stream:
        device = self.resolve(device)
        return self.thread.streams.get(device.index) or self.default_stream(device)

    def knows(self, clock: Clock) -> bool:
        """Whether the host has waited for that time."""
        return all(self.host.get(number, 0) >= time for number, time in clock.items())

    def wait_for(self, clock: Clock, what: str, unasked: bool = False) -> None:
        """The host waits for that time."""
        with self.lock, self.aside():
            streams = self.thread.streams.values()
            capturing = next((each.capturing for each in streams if each.capturing), None)
            if capturing is not None:
                capturing.refuse(what)
            (self.waits if unasked else self.asked).append(Wait(what, *where()))
            advance(self.host, clock)
            still = []
            for entry in self.arriving:
                if self.knows(entry[0]):
                    with torch.inference_mode():
                        entry[1].copy_(entry[2])
                else:
                    still.append(entry)
            self.arriving = still

    def synchronize(self, device: Any = None) -> None:
        self.wait_for(self.stream(device).clock, "synchronize")
        for stream in [*self.defaults.values(), *self.thread.streams.values()]:
            advance(self.host, stream.clock)

    def order(self, stream: Stream, reads: list[Memory], writes: list[Memory]) -> None:
        """A stream's next operation, which must come after what others did to this memory."""
        touched = {*reads, *writes}
        for number, time in {memory.written for memory in touched}:
            if stream.clock.get(number, 0) < time:
                self.error(f"stream {stream.number} uses what stream {number} writes")
        for number, time in {each for memory in writes for each in memory.used.items()}:
            if stream.clock.get(number, 0) < time:
                self.error(f"stream {stream.number} writes what stream {number} uses")
        stream.clock[stream.number] += 1
        for memory in touched:
            memory.used[stream.number] = stream.clock[stream.number]
        for memory in writes:
            memory.written = stream.number, stream.clock[stream.number]

    def error(self, what: str) -> None:
        self.errors.append(f"{what} at {where()[0]}")

    @contextlib.contextmanager
    def aside(self) -> Iterator[None]:
        """Inside, operations on CPU tensors are the machine's own."""
        before, self.thread.aside = self.thread.aside, True
        try:
            yield
        finally:
            self.thread.aside = before

    # Memory

    def hold(self, held: Tensor, device: torch.device) -> OnDevice:
        """A result as a tensor on a device."""
        storage = held.untyped_storage()
        memory = self.memories.get(storage._cdata)
        if memory is None:
            size = storage.nbytes()
            if self.allocated + size > self.capacity:
                raise torch.OutOfMemoryError("CUDA out of memory. (pretended)")
            self.allocated += size
            self.peak = max(self.peak, self.allocated)
            stream = self.stream(device)
            memory = self.memories[storage._cdata] = Memory(stream, stream.capturing)
            state = (stream, memory.used, memory.recorded, size, where()[0])
            weakref.finalize(memory, self._freed, *state).atexit = False
        return OnDevice(held, memory)

    def _freed(self, owner: Stream, used: Clock, recorded: set[int], size: int, line: str) -> None:
        self.allocated -= size
        for number, time in used.items():
            known = max(owner.clock.get(number, 0), self.host.get(number, 0))
            if number != owner.number and number not in recorded and known < time:
                self.errors.append(f"what {line} made is freed while stream {number} may use it")

    def release(self, pool: Any) -> None:
        self.pools[pool] -= 1

    def end_allocation(self, device: int, pool: Any) -> None:
        """``torch._C._cuda_endAllocateToPool``."""
        if pool not in self.captures:
            raise Refused("endAllocatePool: not currently recording to mempool_id")
        self.captures.remove(pool)

    def empty_cache(self) -> None:
        if self.captures:
            raise Refused(
                "captures_underway.empty() INTERNAL ASSERT FAILED at CUDACachingAllocator"
            )
        self.pools = {pool: uses for pool, uses in self.pools.items() if uses}

    # Operations

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        with self.lock:
            return self._dispatch(func, args, kwargs or {})

    def _dispatch(self, func: Any, args: Any, kwargs: Any) -> Any:
        if self.thread.aside:
            return func(*args, **kwargs)
        tensors = tensors_in((*args, *kwargs.values()))
        on_device = [tensor for tensor in tensors if isinstance(tensor, OnDevice)]
        wanted = kwargs.get("device")
        to_device = wanted is not None and torch.device(wanted).type == self.kind
        if not (on_device or to_device):
            return self._on_host(func, args, kwargs)
        if is_composite(func):
            with self:  # its operations are seen one by one
                return func._op_dk(torch._C.DispatchKey.CompositeImplicitAutograd, *args, **kwargs)
        device = self.resolve(wanted) if to_device else on_device[0].device
        if func is aten._to_copy.default:
            return self._copied(args[0], device if to_device else wanted, kwargs)
        if func is aten.copy_.default and len({tensor.device for tensor in tensors}) > 1:
            return self._copied_into(*args[:2], args[2] if len(args) > 2 else False)
        if not to_device:  # ``empty_like`` and its kind may make theirs elsewhere
            self._check_devices(func, args, tensors, device)
        self.refuse(func, args)
        if func in WAITING and kwargs.get("output_size") is None:
            self.wait_for(self.stream(device).clock, str(func), unasked=True)
        return self._launch(func, args, kwargs, on_device, device)

    def _on_host(self, func: Any, args: Any, kwargs: Any) -> Any:
        if name_of(func) == "is_pinned":
            return args[0].untyped_storage()._cdata in self.pinned
        if name_of(func) in ("pin_memory", "_pin_memory"):
            return self._pin(args[0].clone())
        if kwargs.get("pin_memory"):
            return self._pin(func(*args, **{**kwargs, "pin_memory": False}))
        for tensor in written(func, args, kwargs) if self.pinned else ():
            entry = self.pinned.get(tensor.untyped_storage()._cdata)
            if entry is not None and not self.knows(entry[1]):
                self.error("the host writes to pinned memory that is being copied")
        return func(*args, **kwargs)

    def _pin(self, tensor: Tensor) -> Tensor:
        self.pinned[tensor.untyped_storage()._cdata] = tensor, {}
        return tensor

    def _check_devices(
        self, func: Any, args: Any, tensors: list[Tensor], device: torch.device
    ) -> None:
        clock = self.stream(device).clock
        indices = tensors_in(args[1]) if func in INDEXING else []
        if any(index.dtype in (torch.bool, torch.uint8) for index in indices):
            self.wait_for(clock, "a mask as index", unasked=True)
        for tensor in tensors:
            if tensor.device == device:
                continue
            if tensor.device.type == "cpu" and any(tensor is index for index in indices):
                self.wait_for(clock, "an index from the host", unasked=True)
            elif tensor.device.type == "cpu" and tensor.dim() == 0:
                if func in INDEXING:  # copied to the device first
                    self.wait_for(clock, "a number from the host", unasked=True)
            else:
                raise Refused(
                    "Expected all tensors to be on the same device, but found at least two "
                    f"devices, {device} and {tensor.device}! ({func})"
                )

    def _launch(
        self, func: Any, args: Any, kwargs: Any, on_device: list[OnDevice], device: torch.device
    ) -> Any:
        """Compute, and give the results as tensors on ``device``."""
        stream = self.stream(device)
        graph = stream.capturing
        changed = [each for each in written(func, args, kwargs) if isinstance(each, OnDevice)]
        inner = (
            mapped(held, tuple(args)),
            {name: mapped(held, value) for name, value in kwargs.items()},
        )
        if "device" in kwargs:
            inner[1]["device"] = self.held
        if graph is not None:
            for tensor in changed:
                graph.changes(tensor)
        with self.aside():
            made = compute(func, *inner)
        own = {id(tensor.held): tensor for tensor in on_device}
        fresh: list[Memory] = []

        def wrap(result: Tensor) -> OnDevice:
            if id(result) in own:
                return own[id(result)]
            if result.untyped_storage()._cdata in self.memories:
                # The view of a tensor from outside of inference mode is from outside as well.
                with torch.inference_mode(all(tensor.is_inference() for tensor in on_device)):
                    return self.hold(result, device)
            wrapped = self.hold(result, device)
            fresh.append(wrapped.memory)
            return wrapped

        results = mapped(wrap, made)
        is_view = not changed and not fresh and tensors_in((results,)) != []
        reads = [tensor.memory for tensor in on_device]
        writes = [*(tensor.memory for tensor in changed), *fresh]
        runs = not is_view and not name_of(func).startswith("empty")
        if runs:
            self.kernels[name_of(func)] += 1
        if graph is not None:
            graph.note((func, *inner, made), [*reads, *writes] if runs else [])
        elif runs:
            if any(memory.graph is not None and memory.graph.ended for memory in reads):
                self.error("memory of a graph's own is read outside of it")
            self.order(stream, reads, writes)
        return results

    # Copies between host and device

    def _copied(self, tensor: Tensor, target: Any, kwargs: Any) -> Tensor:
        """``Tensor.to``."""
        target = tensor.device if target is None else torch.device(target)
        if isinstance(tensor, OnDevice) and target == tensor.device:
            left = {name: value for name, value in kwargs.items() if name != "device"}
            return self._launch(aten._to_copy.default, (tensor,), left, [tensor], target)
        dtype = kwargs.get("dtype") or tensor.dtype
        later = bool(kwargs.get("non_blocking"))
        with self.aside():
            if isinstance(tensor, OnDevice) and target.type == "cpu":
                into = torch.empty_like(tensor.held, dtype=dtype)
                return self._to_host(tensor, self._pin(into) if later else into, later)
            if isinstance(tensor, OnDevice):
                made = self.hold(tensor.held.to(dtype, copy=True), target)
                self.order(self.stream(tensor.device), [tensor.memory], [made.memory])
                return made
            made = self.hold(tensor.to(self.held, dtype, copy=True), target)
        self._to_device(tensor, made, later)
        return made

    def _copied_into(self, into: Tensor, origin: Tensor, later: bool) -> Tensor:
        """``Tensor.copy_`` between devices."""
        if not isinstance(into, OnDevice):
            pinned = into.untyped_storage()._cdata in self.pinned
            return self._to_host(origin, into, later and pinned)
        with self.aside():
            into.held.copy_(origin.held if isinstance(origin, OnDevice) else origin)
        if isinstance(origin, OnDevice):
            self.order(self.stream(into.device), [origin.memory], [into.memory])
        else:
            self._to_device(origin, into, later)
        return into

    def _to_device(self, origin: Tensor, made: OnDevice, later: bool) -> None:
        stream = self.stream(made.device)
        entry = self.pinned.get(origin.untyped_storage()._cdata)
        if stream.capturing is not None:
            stream.capturing.refuse("a copy from the host")
        self.kernels["to device"] += 1
        self.order(stream, [], [made.memory])
        if later and entry is not None:
            advance(entry[1], {stream.number: stream.clock[stream.number]})
        else:
            self.wait_for(stream.clock, "a copy to the device", unasked=True)

    def _to_host(self, origin: OnDevice, into: Tensor, later: bool) -> Tensor:
        stream = self.stream(origin.device)
        if stream.capturing is not None:
            stream.capturing.refuse("a copy to the host")
        self.kernels["to host"] += 1
        self.order(stream, [origin.memory], [])
        with self.aside():
            values = origin.held.to(into.dtype, copy=True)
            into.copy_(values if not later else torch.full_like(values, GARBAGE))
        if later:
            self.arriving.append(({stream.number: stream.clock[stream.number]}, into, values))
        else:
            self.wait_for(stream.clock, "a copy to the host", unasked=True)
        return into


def where() -> tuple[str, frozenset[str]]:
    """The line of the project that is at work, and the functions that it is within."""
    line, within = "?", set()
    frame = sys._getframe(1)
    while frame is not None:
        name = frame.f_code.co_filename
        if name.startswith(PACKAGE):
            if not within:
                line = f"{name.removeprefix(PACKAGE)}:{frame.f_lineno} {frame.f_code.co_name}"
            within.add(frame.f_code.co_name)
        frame = frame.f_back
    return line, frozenset(within)


@contextlib.contextmanager
def running(machine: Machine, stand_ins: list[tuple[Any, str, Any]]) -> Iterator[None]:
    """Inside, there is the machine, and ``stand_ins`` are in their places: owner, name, value."""
    start = threading.Thread.run

    def run(thread: threading.Thread) -> None:
        torch._C._set_only_lift_cpu_tensors(True)  # of this thread
        with machine:
            start(thread)

    future = torch.__future__
    settings = (
        (torch._C._only_lift_cpu_tensors, torch._C._set_only_lift_cpu_tensors),
        # ``Module.to`` makes new parameters: a plain tensor cannot become one on the device.
        (
            future.get_overwrite_module_params_on_conversion,
            future.set_overwrite_module_params_on_conversion,
        ),
    )
    with contextlib.ExitStack() as stack:
        stack.enter_context(device_guard(machine.kind, lambda: machine.thread.device))
        for owner, name, value in (*stand_ins, (threading.Thread, "run", run)):
            stack.enter_context(mock.patch.object(owner, name, value, create=True))
        for getting, setting in settings:
            stack.callback(setting, getting())
            setting(True)
        preprocess._mean_and_std.cache_clear()  # tensors on the device of another test
        stack.callback(preprocess._mean_and_std.cache_clear)
        machines.append(machine)
        stack.callback(machines.remove, machine)
        with machine:
            yield


@contextlib.contextmanager
def pretended(
    devices: int = 1, capacity: int = 80 << 30, capability: tuple[int, int] = (9, 0)
) -> Iterator[Machine]:
    """A machine with CUDA devices of ``capability``, of ``capacity`` bytes together."""
    machine = Machine(devices, capacity)
    machine.refuse = functools.partial(refuse_kernels, capability=capability)

    def properties(device: Any = None) -> SimpleNamespace:
        return SimpleNamespace(
            name="a pretended GPU",
            major=capability[0],
            minor=capability[1],
            total_memory=machine.capacity,
            multi_processor_count=132,
        )

    stand_ins: dict[str, Any] = {
        "is_available": lambda: True,
        "device_count": lambda: devices,
        "current_device": lambda: machine.thread.device,
        "set_device": lambda device: setattr(
            machine.thread, "device", machine.resolve(device).index
        ),
        "get_device_capability": lambda device=None: capability,
        "get_device_name": lambda device=None: properties().name,
        "get_device_properties": properties,
        "is_bf16_supported": lambda including_emulation=True: (
            including_emulation or capability >= (8, 0)
        ),
        "mem_get_info": lambda device=None: (
            machine.capacity - machine.allocated,
            machine.capacity,
        ),
        "memory_reserved": lambda device=None: machine.allocated,
        "memory_allocated": lambda device=None: machine.allocated,
        "max_memory_allocated": lambda device=None: machine.peak,
        "_lazy_init": lambda: None,
        "Stream": Stream,
        "Event": Event,
        "CUDAGraph": Graph,
        "stream": StreamContext,
        "device": DeviceContext,
        "current_stream": machine.stream,
        "default_stream": machine.default_stream,
        "synchronize": machine.synchronize,
        "empty_cache": machine.empty_cache,
        "graph_pool_handle": lambda: (0, next(numbers)),
        "is_current_stream_capturing": lambda: machine.stream().capturing is not None,
    }
    places = [(torch.cuda, name, value) for name, value in stand_ins.items()]
    places.append((torch.cuda.graph, "default_capture_stream", None))
    places.append((torch._C, "_host_emptyCache", lambda: None))
    places.append((torch._C, "_cuda_endAllocateToPool", machine.end_allocation))
    with running(machine, places):
        yield machine
