"""Token rows of unequal lengths as one tensor, padded on the right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def padded(rows: Sequence[Sequence[int]], filler: int) -> Tensor:
    """Rows of tokens as int64 [R, T], ``filler`` behind the shorter ones."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[filler] * (width - len(row))] for row in rows])


def padding_mask(rows: Sequence[Sequence[int]]) -> Tensor:
    """int64 [R, T]: 1 where ``padded`` has a row's own token."""
    lengths = torch.tensor([len(row) for row in rows])
    return (torch.arange(int(lengths.max())) < lengths[:, None]).long()
