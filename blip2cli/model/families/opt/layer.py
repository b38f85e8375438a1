"""One layer of a decoder in pieces: projection, attention, and the rest.

Projections and the rest are those of a layer: OPT's (``net``), or that of a family which shares
these pieces (``families/llama/net``). The arithmetic is that of transformers with eager attention;
``session`` and ``kv_slots`` put the pieces together.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from blip2cli.model.layers.attention import (
    attention_kernel,
    attention_scores,
    fused_attention,
    uses_fused_kernels,
)

QueryKeyValue = tuple[Tensor, Tensor, Tensor]


def behind_context(context: Sequence[tuple[Tensor, Tensor]], own: Tensor) -> Tensor:
    """Keys or values ``own`` [R, heads, T, head size] behind those of their context, [R, heads, all
    positions, head size].

    ``context`` are pieces that follow one another: which rows [R] of which keys or values.
    """
    lengths = [*(cached.shape[2] for _, cached in context), own.shape[2]]
    whole = own.new_empty(*own.shape[:2], sum(lengths), own.shape[3])
    *places, last = whole.split(lengths, dim=2)
    for place, (rows, cached) in zip(places, context, strict=True):
        # Four times as quick as ``cat`` of gathered rows on a CPU.
        torch.index_select(cached, 0, rows.to(cached.device), out=place)
    last.copy_(own)
    return whole


def project(layer: Any, hidden: Tensor, rotation: Any) -> QueryKeyValue:
    """Query, key and value of hidden states [R, T, D]: each [R, heads, T, head size].

    Contiguous, but for fused kernels: strided rows are multiplied by other kernels than a single
    row (measured for up to 11 positions), and a row would depend on its neighbours.
    """
    return heads_first(*layer.project(hidden, rotation))


def heads_first(query: Tensor, pair: Tensor) -> QueryKeyValue:
    """Query [R, T, heads, head size], and key and value [R, T, 2, heads, head size], each as
    [R, heads, T, head size]; contiguous where ``project`` says so."""
    query, key, value = (each.transpose(1, 2) for each in (query, *pair.unbind(2)))
    if uses_fused_kernels(query):
        return query, key, value
    return query.contiguous(), key.contiguous(), value.contiguous()


def project_one(layer: Any, hidden: Tensor, rotation: Any) -> tuple[Tensor, Tensor]:
    """Query [R, heads, 1, head size] of the states of one position, [R, 1, D], and its key and
    value, [R, 2, heads, head size]."""
    query, pair = layer.project(hidden, rotation)
    query = query.transpose(1, 2)
    return query if uses_fused_kernels(hidden) else query.contiguous(), pair[:, 0]


def attend(layer: Any, query: Tensor, key: Tensor, value: Tensor, mask: Tensor) -> Tensor:
    """Attention with ``mask`` (broadcast) added to the scores, by plain matrix products where there
    is no fused kernel. ``query`` is overwritten."""
    scaling = layer.self_attn.scaling
    if uses_fused_kernels(query):
        return fused_attention(query, key, value, mask, scaling)
    scores = attention_scores(query.mul_(scaling), key).add_(mask)
    shares = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (shares @ value).transpose(1, 2).flatten(2)


def text_states(decoder: Any, ids: Tensor) -> Tensor:
    """The decoder's last hidden state of texts without an image, [N, T] to [N, T, D]."""
    positions = torch.arange(ids.shape[1], device=ids.device)
    rotation = decoder.rotation(positions)
    hidden = decoder.place(decoder.embed_tokens(ids), positions)
    for layer in decoder.layers:
        # Plain matrix products of few positions would depend on the other rows.
        (hidden,) = layer.receive(hidden)
        query, key, value = project(layer, hidden, rotation)
        query.mul_(layer.self_attn.scaling)
        attended = attention_kernel(query, key, value, is_causal=True, scale=1.0)
        hidden = layer.finish(hidden, attended.transpose(1, 2).flatten(2))
    states: Tensor = decoder.leave(hidden.to(ids.device))
    return states
