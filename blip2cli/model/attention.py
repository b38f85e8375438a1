"""Attention in one kernel, where that is quicker than plain matrix products.

On a CPU it is not (see the notes in ``slots``), and products give a row the same bits in every
batch. On CUDA the fused kernels keep the scores of a prompt's positions out of memory. A decode
step has one query a text; there products stay, which a recorded step replays at no cost.
"""

from __future__ import annotations

from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

DEVICES = frozenset({"cuda"})


def fuses(query: Tensor) -> bool:
    """Whether attention of queries [N, heads, T, size] is to be done in one kernel."""
    return query.device.type in DEVICES and query.shape[2] > 1


def fused(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Attention that does not scale, [N, heads, T, size] each, to [N, T, heads x size].

    ``mask`` broadcasts to [N, heads, T, positions]: true where a position is seen, or numbers that
    are added to the scores.
    """
    attended = scaled_dot_product_attention(query, key, value, attn_mask=mask, scale=1.0)
    return attended.transpose(1, 2).flatten(2)
