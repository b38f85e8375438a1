"""One memory for slots of every shape, of which one is in use at a time.

Keys and values of a shape are views of it, side by side from its beginning, each contiguous. It is
as large as the largest shape needs, so other shapes take nothing more.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Protocol

import torch
from torch import Tensor

Place = tuple[torch.device, torch.dtype]
Numbers = Mapping[Place, int]  # how many numbers of a precision there are on a device


class Allocate(Protocol):
    """Makes the tensors that slots live in; ``torch.zeros`` is one."""

    def __call__(
        self, size: Sequence[int], /, *, dtype: torch.dtype, device: torch.device
    ) -> Tensor:
        """A tensor of this size."""


class SlotArena:
    """Memory that holds ``numbers``."""

    def __init__(self, numbers: Numbers) -> None:
        self._flat = {
            (device, dtype): torch.empty(count, dtype=dtype, device=device)
            for (device, dtype), count in numbers.items()
        }

    def slots(self, numbers: Numbers, count: int) -> int:
        """How many slots of a shape fit, of which ``count`` take ``numbers``."""
        sizes = {place: len(flat) for place, flat in self._flat.items()}
        return min(sizes.get(place, 0) * count // number for place, number in numbers.items())

    def larger(self, numbers: Numbers) -> Numbers:
        """The size of a memory that holds ``numbers``, too. Where it has to grow it grows by a
        quarter at least, so that this is seldom."""
        grown = dict(numbers)
        for place, flat in self._flat.items():
            size, wanted = len(flat), grown.get(place, 0)
            grown[place] = size if wanted <= size else max(wanted, size * 5 // 4)
        return grown

    def allocate(self) -> Allocate:
        """Makes tensors from the beginning on, which hold whatever was there before."""
        taken: Counter[Place] = Counter()

        def view(size: Sequence[int], /, *, dtype: torch.dtype, device: torch.device) -> Tensor:
            place = (device, dtype)
            start = taken[place]
            taken[place] += math.prod(size)
            return self._flat[place][start : taken[place]].view(tuple(size))

        return view


def numbers_of(build: Callable[[Allocate], object]) -> Numbers:
    """How many numbers the slots take that ``build`` makes."""
    taken: Counter[Place] = Counter()

    def count(size: Sequence[int], /, *, dtype: torch.dtype, device: torch.device) -> Tensor:
        taken[device, dtype] += math.prod(size)
        return torch.empty(tuple(size), dtype=dtype, device="meta")

    build(count)
    return taken
