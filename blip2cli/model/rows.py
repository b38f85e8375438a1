"""Linear layers whose rows do not depend on what else is in the batch.

A CPU matrix product splits its rows over threads and kernels by their number. Measured with
torch 2.13 (MKL, float32) at 1, 2, 3, 4, 8, 16, 32 and 64 threads and ten shapes: a row's bits
depend on the row count unless that count is a multiple of four: 1, 2, 3 differ everywhere, with
two threads also 5 to 7 and 9 to 11, with 64 threads counts up to 171. Multiples of four all
agree, as long as the rows lie side by side in memory. So rows are brought together and filled up
to a multiple of eight, inside the layer, where every user of the model gets it. The cost is one
copy of the input where the count is odd.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.functional import linear

ROWS = 8  # row counts are rounded up to a multiple of this


class RowStableLinear(nn.Linear):
    """``nn.Linear`` over a row count rounded up to a multiple of ``ROWS``."""

    def forward(self, input: Tensor) -> Tensor:  # noqa: A002 - nn.Linear's own name
        """Map [..., in_features] to [..., out_features]."""
        rows = input.numel() // self.in_features
        # Rows that lie apart in memory, such as the last positions of a prefix, would be
        # multiplied by another kernel than rows that lie side by side.
        flat = input.reshape(rows, self.in_features).contiguous()
        short = -rows % ROWS
        if short:
            flat = torch.cat((flat, flat.new_zeros(short, self.in_features)))
        output = linear(flat, self.weight, self.bias)[:rows]
        return output.reshape(*input.shape[:-1], self.out_features)


def make_rows_stable(model: nn.Module) -> None:
    """Turn every plain linear layer of ``model`` into a ``RowStableLinear``, weights in place."""
    for module in model.modules():
        if type(module) is nn.Linear:
            module.__class__ = RowStableLinear
