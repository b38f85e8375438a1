"""How many rows a product has, where their number decides about bits.

oneDNN's bfloat16 products on AMX choose by the number of rows into how many pieces a sum is cut
(``matmul_amx_blocking_params_macro_t`` in its ``amx_blocking_heuristics.cpp``, 3.12): 32, 257 and
514 rows of 6,144 numbers give three results for the same row. There all products of a layer have
one number of rows, which only the length of its sequences decides: longer batches take several
calls, shorter ones are filled up, unless fewer rows get the same bits (see ``agreement``).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class GemmRows:
    """The number of rows, by the length of sequences."""

    rows: tuple[tuple[int, int], ...]  # up to a length, about so many rows

    def sequences(self, length: int) -> int:
        """How many sequences of ``length`` go into one product."""
        rows = next(rows for longest, rows in self.rows if length <= longest)
        return max(1, rows // max(1, length))


# Beyond half of the rows there is little to be saved, and each trial takes milliseconds.
_FEWER = (48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


def fewer_rows(least: int, many: int) -> list[int]:
    """Numbers of rows to fill ``least`` up to in place of ``many``, if they get the same bits."""
    return [least, *(few for few in _FEWER if least < few <= many // 2)]


# Few rows waste little on a small batch, many are quicker. A decode step has a row for each slot;
# those of a large model are up to 32, which take the time that reading its weights takes. Prompts
# are read a few at a time, images as many as a batch or a part of it has.
LARGE_MODEL = 1 << 30  # bytes of packed weights
_ANY = sys.maxsize
# Whether the model is large, and whether the layer is its language model's.
_TABLE = {
    (False, False): GemmRows(((1, 64), (127, 256), (_ANY, 2056))),
    (False, True): GemmRows(((1, 64), (31, 256), (_ANY, 1088))),
    (True, False): GemmRows(((1, 32), (127, 256), (_ANY, 2056))),
    (True, True): GemmRows(((1, 32), (31, 128), (_ANY, 256))),
}


def gemm_rows_for(dtype: torch.dtype, name: str, total: int) -> GemmRows | None:
    """For a layer of this name, in a model of ``total`` bytes; None: any number of rows will do."""
    if dtype is not torch.bfloat16 or not torch.cpu._is_amx_tile_supported():
        return None
    return _TABLE[total >= LARGE_MODEL, name.startswith("language_model.")]
