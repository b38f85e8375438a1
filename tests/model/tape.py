"""A CUDA graph on a CPU: operations are recorded with the very tensors they read and wrote, and
repeated on those."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves


class Tape(TorchDispatchMode):
    """Records operations while it is open."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []
        self.before: dict[int, tuple[Any, Any]] = {}  # what was written to, as it was

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func is torch.ops.aten._local_scalar_dense.default:
            raise RuntimeError("the host asks for a number while a graph is captured")
        for argument, value in zip(func._schema.arguments, args, strict=False):
            written = argument.alias_info is not None and argument.alias_info.is_write
            if written and isinstance(value, Tensor):
                storage = value.untyped_storage()
                self.before.setdefault(storage.data_ptr(), (storage, storage.clone()))
        made = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, made))
        return made

    def undo(self) -> None:
        """Put back what was written to: to capture operations is not to do them."""
        for storage, before in self.before.values():
            storage.copy_(before)
        self.before.clear()

    def play(self) -> None:
        """Repeat them; results go where they went at first."""
        for func, args, kwargs, made in self.operations:
            again = func(*args, **kwargs)
            for old, new in zip(tree_leaves(made), tree_leaves(again), strict=True):
                if isinstance(old, Tensor) and old.data_ptr() != new.data_ptr():
                    old.copy_(new)


class TapeCapture:
    """Takes the place of ``CudaGraphCapture``; counts replays by the order of capture."""

    def __init__(self) -> None:
        self.played: list[int] = []

    def run(self, work: Callable[[], object]) -> None:
        work()

    def capture(self, work: Callable[[], object]) -> Callable[[], object]:
        number = len(self.played)
        self.played.append(0)
        tape = Tape()
        with tape:
            work()
        tape.undo()

        def replay() -> None:
            self.played[number] += 1
            tape.play()

        return replay
