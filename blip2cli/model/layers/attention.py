"""Scaled dot-product attention that does not depend on the rest of the batch, in its fastest form.

**Prefill and decode steps.** On a CPU plain matrix products of contiguous rows, which give a row
the same bits in every batch. On CUDA one fused kernel, which keeps the scores of a prompt's
positions out of memory, reads strided rows where they are, and is one launch a layer in a decode
step. Masks are numbers that are added to the scores, made once for all layers.

**Vision encoder and Q-Former.** torch's fused kernel, but not in bfloat16 on a CPU that has
AVX512-BF16 and no AMX. There it multiplies blocks that are too small: measured with 16 images of
ViT-g (257 positions, 16 heads of 88) on two cores, 61 ms in place of 32. Scores and their
exponentials are rounded to bfloat16 in between, as in transformers' eager attention.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import pad, scaled_dot_product_attention

FUSED_DEVICES = frozenset({"cuda"})
# Not cuDNN, which builds a plan for every new shape (0.44 s each in a public report).
_KERNELS = [SDPBackend.FLASH_ATTENTION, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def attention_kernel(query: Tensor, key: Tensor, value: Tensor, **options: Any) -> Tensor:
    """torch's ``scaled_dot_product_attention``, on CUDA by kernels that take any shape at once."""
    if query.device.type != "cuda":
        return scaled_dot_product_attention(query, key, value, **options)
    if torch.compiler.is_compiling():
        with sdpa_kernel(_KERNELS):
            return scaled_dot_product_attention(query, key, value, **options)
    # The one switch: that context takes 12 us, and there are a hundred attentions in a batch.
    switches = torch.backends.cuda
    before = switches.cudnn_sdp_enabled()
    switches.enable_cudnn_sdp(False)
    try:
        return scaled_dot_product_attention(query, key, value, **options)
    finally:
        switches.enable_cudnn_sdp(before)


def uses_fused_kernels(states: Tensor) -> bool:
    """Whether attention of ``states`` runs in one fused kernel, which takes strided tensors."""
    return states.device.type in FUSED_DEVICES


def fused_attention(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float
) -> Tensor:
    """Attention of queries [N, heads, T, size] and keys and values [N, heads, positions, size], to
    [N, T, heads x size].

    ``mask`` is added to the scores, and broadcasts to [N, heads, T, positions]. ``scale``
    multiplies them.
    """
    attended = attention_kernel(query, key, value, attn_mask=mask, scale=scale)
    return attended.transpose(1, 2).flatten(2)


def additive_mask(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """0 where ``seen`` is true, elsewhere minus infinity."""
    return aligned(torch.zeros_like(seen, dtype=dtype).masked_fill_(~seen, -torch.inf))


def aligned(mask: Tensor) -> Tensor:
    """``mask`` with rows that begin at multiples of eight numbers, where it is for a fused kernel:
    torch would make such a copy in each layer (``preprocess_mask`` in its ``attention.cpp``)."""
    length = mask.shape[-1]
    if length % 8 == 0 or not uses_fused_kernels(mask):
        return mask
    return pad(mask, (0, -length % 8))[..., :length]


def prefix_masks(positions: int, dtype: torch.dtype, device: torch.device) -> Tensor:
    """Row n is the mask of the first n positions: [positions + 1, 1, 1, positions]."""
    place = torch.arange(positions, device=device)
    lengths = torch.arange(positions + 1, device=device)
    return additive_mask(place < lengths[:, None], dtype)[:, None, None]


def attention_scores(query: Tensor, key: Tensor) -> Tensor:
    """Products of queries [N, heads, T, size] with keys: [N, heads, T, positions].

    Those of a single query are faster as keys times a column in bfloat16 on AMX, and slower
    elsewhere: 16 sequences, 32 heads of 80, 48 positions took 174 us in place of 312.
    """
    if query.shape[2] == 1 and _columns_are_faster(query):
        return (key @ query.transpose(-1, -2)).transpose(-1, -2)
    return query @ key.transpose(-1, -2)


def _columns_are_faster(query: Tensor) -> bool:
    on_cpu = query.dtype is torch.bfloat16 and query.device.type == "cpu"
    return on_cpu and torch.cpu._is_amx_tile_supported()


def full_attention(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """Attention without a mask: [B, heads, T, size] and [B, heads, positions, size] to
    [B, T, heads x size]."""
    if _uses_products(query):
        return _attention_by_image(query, key, value)
    return attention_kernel(query, key, value).transpose(1, 2).flatten(2)


def _uses_products(query: Tensor) -> bool:
    if query.dtype is not torch.bfloat16 or query.device.type != "cpu":
        return False
    return _small_blocks_are_slow()


@cache
def _small_blocks_are_slow() -> bool:
    return torch.cpu._is_avx512_bf16_supported() and not torch.cpu._is_amx_tile_supported()


def _attention_by_image(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """The intermediate results of one image stay in a core's cache, and do not depend on the
    batch."""
    images, heads, queries, size = query.shape
    result = query.new_empty(images, queries, heads, size)
    scores = query.new_empty(heads, queries, key.shape[2])
    weights = torch.empty_like(scores)
    attended = query.new_empty(heads, queries, size)
    for image in range(images):
        ours, keys = query[image].contiguous(), key[image].contiguous().transpose(1, 2)
        torch.baddbmm(scores, ours, keys, beta=0, alpha=size**-0.5, out=scores)
        torch.softmax(scores, -1, out=weights)
        torch.bmm(weights, value[image].contiguous(), out=attended)
        result[image] = attended.transpose(0, 1)
    return result.flatten(2)
