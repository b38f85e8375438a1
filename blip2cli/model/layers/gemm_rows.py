"""Fixed row counts of matrix products (GEMMs), where the count decides a row's bits.

oneDNN's bfloat16 products on AMX choose by the number of rows into how many pieces a sum is cut
(``matmul_amx_blocking_params_macro_t`` in its ``amx_blocking_heuristics.cpp``, 3.12): 32, 257 and
514 rows of 6,144 numbers give three results for the same row. There all products of a layer have
one number of rows, which depends only on the sequence length: larger batches take several products,
smaller ones are padded, unless fewer rows give the same bits (see ``bitwise_probe``).
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class GemmRows:
    """Rows of a product by sequence length."""

    rows: tuple[tuple[int, int], ...]  # (longest sequence, rows at most), ascending

    def sequences(self, length: int) -> int:
        """How many sequences of ``length`` tokens go into one product."""
        rows = next(rows for longest, rows in self.rows if length <= longest)
        return max(1, rows // max(1, length))


# Beyond half of the rows there is little to be saved, and each trial takes milliseconds.
_FEWER = (48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)


def fewer_rows(least: int, many: int) -> list[int]:
    """Row counts to try for padding instead of ``many``, ascending from ``least``."""
    return [least, *(few for few in _FEWER if least < few <= many // 2)]


# Few rows waste little on a small batch, many are quicker. A decode step has a row for each slot;
# those of a large model are up to 32, which take the time that reading its weights takes. Prompts
# are prefilled a few at a time; of images a product takes a batch or a chunk of it.
LARGE_MODEL_BYTES = 1 << 30  # of packed weights
_ANY = sys.maxsize
# By whether the model is large, and whether the layer is its language model's.
_TABLE = {
    (False, False): GemmRows(((1, 64), (127, 256), (_ANY, 2056))),
    (False, True): GemmRows(((1, 64), (31, 256), (_ANY, 1088))),
    (True, False): GemmRows(((1, 32), (127, 256), (_ANY, 2056))),
    (True, True): GemmRows(((1, 32), (31, 128), (_ANY, 256))),
}


def gemm_rows_for(dtype: torch.dtype, name: str, total: int) -> GemmRows | None:
    """For a layer of this name in a model of ``total`` packed bytes; None: any number of rows."""
    if dtype is not torch.bfloat16 or not torch.cpu._is_amx_tile_supported():
        return None
    return _TABLE[total >= LARGE_MODEL_BYTES, name.startswith("language_model.")]
