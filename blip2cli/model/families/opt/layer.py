"""One layer of OPT in pieces: projection, attention, and the rest.

The arithmetic is that of transformers' ``OPTDecoderLayer`` with eager attention
(``modeling_opt.py``); the weights are in ``net``. ``session`` and ``kv_slots`` put the pieces
together.
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
    uses_fused_kernel,
)

KeyValue = tuple[Tensor, Tensor]  # of some rows, [R, heads, positions, head size] each
QueryKeyValue = tuple[Tensor, Tensor, Tensor]


def prepend(
    context: Sequence[tuple[Tensor, KeyValue]], projected: Sequence[QueryKeyValue]
) -> list[QueryKeyValue]:
    """Query, keys and values of groups of rows, the latter two behind those of their context.

    ``context`` are pieces that follow one another: which rows of which keys and values.
    """
    size = len(projected[0][0])
    keys, values = (
        zip(
            *(cached[which][rows.to(cached[which].device)].split(size) for rows, cached in context),
            strict=True,
        )
        for which in (0, 1)
    )
    return [
        (
            query,
            torch.cat((*context_keys, key), dim=2),
            torch.cat((*context_values, value), dim=2),
        )
        for (query, key, value), context_keys, context_values in zip(
            projected, keys, values, strict=True
        )
    ]


def project(layer: Any, hidden: Tensor) -> QueryKeyValue:
    """Query (scaled), key and value of hidden states [R, T, D]: each [R, heads, T, head size].

    Contiguous: strided rows are multiplied by other kernels than a single row (measured for up to
    11 positions), and a row would depend on its neighbours.
    """
    attention = layer.self_attn
    if layer.do_layer_norm_before:
        hidden = layer.self_attn_layer_norm(hidden)
    projected = attention.project(hidden, "q_proj", "k_proj", "v_proj")
    size = (attention.num_heads, attention.head_dim)
    query, key, value = (each.unflatten(2, size).transpose(1, 2).contiguous() for each in projected)
    return query.mul_(attention.scaling), key, value


def attend(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """Attention over the positions in the mask ``seen`` (broadcast), by plain matrix products where
    no fused kernel is quicker."""
    if uses_fused_kernel(query):
        return fused_attention(query, key, value, seen)
    scores = attention_scores(query, key).masked_fill(~seen, -torch.inf)
    shares = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (shares @ value).transpose(1, 2).flatten(2)


def finish(layer: Any, hidden: Tensor, attended: Tensor) -> Tensor:
    """The rest of a layer, behind its attention."""
    hidden = layer.self_attn.out_proj(attended, hidden)
    if not layer.do_layer_norm_before:
        hidden = layer.self_attn_layer_norm(hidden)
    inner = layer.final_layer_norm(hidden) if layer.do_layer_norm_before else hidden
    hidden = layer.fc2(layer.fc1(inner), hidden)
    return hidden if layer.do_layer_norm_before else layer.final_layer_norm(hidden)


def text_states(decoder: Any, ids: Tensor) -> Tensor:
    """The decoder's last hidden state of texts without an image, [N, T] to [N, T, D]."""
    hidden = decoder.place(decoder.embed_tokens(ids), torch.arange(ids.shape[1], device=ids.device))
    for layer in decoder.layers:
        # Plain matrix products of few positions would depend on the other rows.
        (hidden,) = layer.receive(hidden)
        attended = attention_kernel(*project(layer, hidden), is_causal=True, scale=1.0)
        hidden = finish(layer, hidden, attended.transpose(1, 2).flatten(2))
    states: Tensor = decoder.leave(hidden.to(ids.device))
    return states
