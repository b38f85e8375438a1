"""One layer of OPT, in the pieces that a schedule puts together: projection, attention, the rest.

The arithmetic is that of transformers' ``OPTDecoderLayer`` with eager attention
(``modeling_opt.py``); the weights are in ``nets/opt.py``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from blip2cli.model.layers.attention import attention_scores, fused_attention, uses_fused_kernel

Kept = tuple[Tensor, Tensor]  # keys and values of some rows, [R, heads, positions, head size]
Made = tuple[Tensor, Tensor, Tensor]  # of query, keys and values


def behind(stood: Sequence[tuple[Tensor, Kept]], made: Sequence[Made]) -> list[Made]:
    """Query, keys and values of groups of rows, the latter behind what stands in front of them."""
    size = len(made[0][0])
    keys, values = (
        zip(*(kept[which][rows].split(size) for rows, kept in stood), strict=True)
        for which in (0, 1)
    )
    return [
        (query, torch.cat((*early, key), dim=2), torch.cat((*earlier, value), dim=2))
        for (query, key, value), early, earlier in zip(made, keys, values, strict=True)
    ]


def project(layer: Any, hidden: Tensor) -> Made:
    """Query (scaled), key and value of hidden states [R, T, D]: each [R, heads, T, head size].

    Side by side in memory: rows that lie apart are multiplied by other kernels than a single one
    (measured for up to 11 positions), and a row would depend on whether it is alone.
    """
    attention = layer.self_attn
    if layer.do_layer_norm_before:
        hidden = layer.self_attn_layer_norm(hidden)
    made = attention.project(hidden, "q_proj", "k_proj", "v_proj")
    apart = (attention.num_heads, attention.head_dim)
    query, key, value = (each.unflatten(2, apart).transpose(1, 2).contiguous() for each in made)
    return query.mul_(attention.scaling), key, value


def attend(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """Attention over the positions that are ``seen`` (broadcast), by plain matrix products where
    no fused kernel is quicker."""
    if uses_fused_kernel(query):
        return fused_attention(query, key, value, seen)
    scores = attention_scores(query, key).masked_fill(~seen, -torch.inf)
    shares = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (shares @ value).transpose(1, 2).flatten(2)


def finish(layer: Any, hidden: Tensor, attended: Tensor) -> Tensor:
    """The rest of a layer, after its attention."""
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
        attended = scaled_dot_product_attention(*project(layer, hidden), is_causal=True, scale=1.0)
        hidden = finish(layer, hidden, attended.transpose(1, 2).flatten(2))
    states: Tensor = decoder.leave(hidden)
    return states
