"""The tensors of slots: made once, changed in place, and narrowed to their first rows.

Nothing is allocated while texts are written, so addresses stay what they are: a step that was
recorded for a device (see ``graphs``) finds its keys and values where they were, with as many slots
as it was recorded for, for as long as the slots exist.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class Room:
    """Tensors with one row a slot, of which the first so many are in use.

    ``held`` are lists of tensors [S, ...]. They are changed in place to views of the rows in use,
    so that whoever made them may go on using them.
    """

    def __init__(self, *held: list[Tensor]) -> None:
        self.whole = [list(tensors) for tensors in held]
        self._views = held

    def narrow(self, count: int) -> None:
        """Use the first ``count`` rows."""
        for views, whole in zip(self._views, self.whole, strict=True):
            views[:] = [tensor[:count] for tensor in whole]

    def keep(self, slots: Sequence[int]) -> None:
        """Keep only these rows, in this order, as the first ones."""
        moved = [(into, origin) for into, origin in enumerate(slots) if into != origin]
        if moved:
            device = self.whole[0][0].device
            into, origin = torch.tensor(moved, device=device).unbind(1)
            for tensors in self.whole:
                for tensor in tensors:
                    tensor[into] = tensor[origin]  # read whole before any is written
        self.narrow(len(slots))

    def clear(self) -> None:
        """Make all rows what they were at first but for the lengths: zero."""
        for tensors in self.whole:
            for tensor in tensors:
                tensor.zero_()
