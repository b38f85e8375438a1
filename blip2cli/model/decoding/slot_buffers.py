"""Tensors with one row a slot: allocated once, changed in place, used up to a number of rows.

The KV slots of each family are made of them.

Nothing is allocated between decode steps, so addresses stay: a step that was captured as a CUDA
graph (see ``cuda_graphs``) finds its keys and values where they were.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from blip2cli.model.decoding.async_copy import to_device
from blip2cli.model.decoding.kv_cache import copy_rows, has_large_rows


class SlotBuffers:
    """Lists of tensors [S, ...], of which the first rows are in use.

    The lists are changed in place to views of the rows in use, so that whoever made them may go
    on using them.
    """

    def __init__(self, *views: list[Tensor]) -> None:
        self.whole = [list(tensors) for tensors in views]
        self._views = views

    def use_first(self, count: int) -> None:
        """Use the first ``count`` rows."""
        for views, whole in zip(self._views, self.whole, strict=True):
            views[:] = [tensor[:count] for tensor in whole]

    def compact(self, slots: Sequence[int]) -> None:
        """Keep only these rows, in this order, as the first ones."""
        moved = [(into, origin) for into, origin in enumerate(slots) if into != origin]
        if moved:
            places, rows = zip(*moved, strict=True)
            disjoint = set(places).isdisjoint(rows)  # else one may be written before it is read
            pairs = to_device(moved, self.whole[0][0].device)
            for tensors in self.whole:
                for tensor in tensors:
                    if disjoint and has_large_rows(tensor):
                        copy_rows(tensor, places, tensor, rows)
                        continue
                    into, origin = pairs.to(tensor.device).unbind(1)
                    tensor[into] = tensor[origin]  # read whole before any is written
        self.use_first(len(slots))

    def reset(self, count: int) -> None:
        """Use the first ``count`` rows, zeroed."""
        self.use_first(count)
        for tensors in self._views:
            for tensor in tensors:
                tensor.zero_()
