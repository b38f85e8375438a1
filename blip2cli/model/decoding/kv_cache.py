"""Keys and values of all layers in few tensors, so that few kernels move them."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

KeyValue = tuple[Tensor, Tensor]  # of N rows, [N, heads, positions, head size] each

LAYERS_TOGETHER = 8  # at most: while rows are moved, those of as many layers are held twice
# On a CPU no kernel is saved, and large tensors have to be mapped anew every time (see
# ``system/malloc``): 40 slots of OPT-2.7b took 0.45 s to open in place of 0.03.
LAYERS_TOGETHER_ON_CPU = 1
# Bytes of a large row: on a CPU such rows are copied one by one. All at once they are gathered in
# new memory first.
LARGE_ROW = 1 << 16


class KVCache:
    """Keys and values of N rows in every layer.

    ``pieces`` are tensors [N, layers, 2, heads, positions, head size], keys before values, each of
    layers on one device that follow one another. In memory all rows of a layer's keys lie together,
    and so do those of its values.
    """

    def __init__(
        self,
        devices: Sequence[torch.device],
        size: tuple[int, int, int, int],
        dtype: torch.dtype,
        allocate: Callable[..., Tensor] = torch.empty,
        layers_together: int | None = None,
    ) -> None:
        """``devices`` are those of the layers, ``size`` is that of one layer's keys.

        ``layers_together`` None: as many layers a piece as suit the device.
        """
        self.pieces: list[Tensor] = []
        self._places: list[tuple[int, int]] = []  # of each layer: its piece, and where it is there
        for device, layers in itertools.groupby(devices):
            count = len(list(layers))
            usual = LAYERS_TOGETHER_ON_CPU if device.type == "cpu" else LAYERS_TOGETHER
            most = layers_together or usual
            for first in range(0, count, most):
                together = min(most, count - first)
                self._places += [(len(self.pieces), number) for number in range(together)]
                whole = allocate((together, 2, *size), dtype=dtype, device=device)
                self.pieces.append(whole.movedim(2, 0))
        self._appended = 0

    def pairs(self) -> list[Tensor]:
        """Of each layer, [N, 2, heads, positions, head size]."""
        return [pair for piece in self.pieces for pair in piece.unbind(1)]

    def __getitem__(self, layer: int) -> KeyValue:
        piece, number = self._places[layer]
        keys, values = self.pieces[piece][:, number].unbind(1)
        return keys, values

    def append(self, pair: KeyValue) -> None:
        """Take those of the next layer."""
        for mine, theirs in zip(self[self._appended], pair, strict=True):
            mine.copy_(theirs)
        self._appended += 1

    def put(self, into: Tensor, origin: KVCache, rows: Tensor, first: int = 0) -> None:
        """Copy ``rows`` of another cache of the same layers to the rows ``into``, to positions
        from ``first`` on."""
        for mine, theirs in zip(self.pieces, origin.pieces, strict=True):
            positions = slice(first, first + theirs.shape[4])
            place = mine[:, :, :, :, positions]
            if has_large_rows(theirs):
                copy_rows(place, into.tolist(), theirs, rows.tolist())
            else:
                place[into.to(mine.device)] = theirs[rows.to(mine.device)]

    def reorder(self, into: Tensor, origin: Tensor, positions: slice) -> None:
        """Copy these positions of the rows ``origin`` to the rows ``into``, all at once."""
        for piece in self.pieces:
            there, here = into.to(piece.device), origin.to(piece.device)
            piece[there, :, :, :, positions] = piece[here, :, :, :, positions]


def has_large_rows(tensor: Tensor) -> bool:
    """Whether rows of ``tensor`` are better copied one by one, by ``copy_rows``."""
    return tensor.device.type == "cpu" and tensor[:1].nbytes >= LARGE_ROW


def copy_rows(there: Tensor, into: Sequence[int], here: Tensor, origin: Sequence[int]) -> None:
    """Copy rows of ``here`` to rows of ``there``, one by one."""
    for place, row in zip(into, origin, strict=True):
        there[place].copy_(here[row])
