"""LAVIS's BLIP-2 as its code defines it: the names and shapes it saves, and what it computes.

Written from ``eva_vit.py``, ``Qformer.py`` and ``blip2_*.py`` of LAVIS 1.0; nothing here knows
transformers' names.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import conv2d, gelu, layer_norm, linear, normalize

Shapes = dict[str, tuple[int, ...]]
State = dict[str, Tensor]


@dataclass(frozen=True)
class Size:
    """The numbers that a model of LAVIS is built with."""

    width: int = 1408  # of the vision encoder
    inner: int = 6144
    depth: int = 39
    heads: int = 16
    patch: int = 14
    image: int = 224
    hidden: int = 768  # of the Q-Former
    layers: int = 12
    qformer_heads: int = 12
    vocabulary: int = 30523
    positions: int = 512
    queries: int = 32
    shared: int = 256


SMALL = Size(
    width=64, inner=279, depth=3, heads=4, patch=8, image=32, hidden=48, layers=4,
    qformer_heads=4, vocabulary=102, positions=64, queries=12, shared=16,
)  # fmt: skip


def _linear(name: str, inputs: int, outputs: int) -> Shapes:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def _norm(name: str, width: int) -> Shapes:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def vision_shapes(size: Size, depth: int | None = None) -> Shapes:
    """EVA's ViT; ``depth`` blocks, where it has more than BLIP-2 uses."""
    tokens = (size.image // size.patch) ** 2 + 1
    shapes: Shapes = {
        "cls_token": (1, 1, size.width),
        "pos_embed": (1, tokens, size.width),
        "patch_embed.proj.weight": (size.width, 3, size.patch, size.patch),
        "patch_embed.proj.bias": (size.width,),
    }
    for number in range(size.depth if depth is None else depth):
        block = f"blocks.{number}"
        shapes |= _norm(f"{block}.norm1", size.width)
        shapes |= {f"{block}.attn.{part}_bias": (size.width,) for part in "qv"}
        shapes |= {f"{block}.attn.qkv.weight": (3 * size.width, size.width)}
        shapes |= _linear(f"{block}.attn.proj", size.width, size.width)
        shapes |= _norm(f"{block}.norm2", size.width)
        shapes |= _linear(f"{block}.mlp.fc1", size.width, size.inner)
        shapes |= _linear(f"{block}.mlp.fc2", size.inner, size.width)
    return shapes


def _bert_attention(name: str, size: Size, keys: int) -> Shapes:
    return {
        **_linear(f"{name}.self.query", size.hidden, size.hidden),
        **_linear(f"{name}.self.key", keys, size.hidden),
        **_linear(f"{name}.self.value", keys, size.hidden),
        **_linear(f"{name}.output.dense", size.hidden, size.hidden),
        **_norm(f"{name}.output.LayerNorm", size.hidden),
    }


def qformer_shapes(size: Size, text: bool) -> Shapes:
    """The Q-Former; with ``text`` its text branch and its language modelling head."""
    hidden, bert = size.hidden, "Qformer.bert"
    shapes: Shapes = {f"{bert}.embeddings.position_ids": (1, size.positions)}
    if text:
        shapes[f"{bert}.embeddings.word_embeddings.weight"] = (size.vocabulary, hidden)
        shapes[f"{bert}.embeddings.position_embeddings.weight"] = (size.positions, hidden)
    shapes |= _norm(f"{bert}.embeddings.LayerNorm", hidden)
    for number in range(size.layers):
        layer = f"{bert}.encoder.layer.{number}"
        shapes |= _bert_attention(f"{layer}.attention", size, hidden)
        if number % 2 == 0:
            shapes |= _bert_attention(f"{layer}.crossattention", size, size.width)
        for branch in ("_query", "") if text else ("_query",):
            shapes |= _linear(f"{layer}.intermediate{branch}.dense", hidden, 4 * hidden)
            shapes |= _linear(f"{layer}.output{branch}.dense", 4 * hidden, hidden)
            shapes |= _norm(f"{layer}.output{branch}.LayerNorm", hidden)
    if text:
        head = "Qformer.cls.predictions"
        shapes |= {f"{head}.bias": (size.vocabulary,)}
        shapes |= _linear(f"{head}.transform.dense", hidden, hidden)
        shapes |= _norm(f"{head}.transform.LayerNorm", hidden)
        shapes |= _linear(f"{head}.decoder", hidden, size.vocabulary)
    return shapes


def saved_shapes(kind: str, size: Size, language_width: int, vision: bool) -> Shapes:
    """What LAVIS's runner saves of a model: all that was trained, and buffers."""
    shapes: Shapes = {"query_tokens": (1, size.queries, size.hidden)}
    if kind == "itm":
        shapes["temp"] = ()
    if vision:
        shapes |= {f"visual_encoder.{name}": s for name, s in vision_shapes(size).items()}
    shapes |= _norm("ln_vision", size.width)
    shapes |= qformer_shapes(size, text=kind == "itm")
    if kind == "itm":
        shapes |= _linear("vision_proj", size.hidden, size.shared)
        shapes |= _linear("text_proj", size.hidden, size.shared)
        shapes |= _linear("itm_head", size.hidden, 2)
    else:
        shapes |= _linear(f"{kind}_proj", size.hidden, language_width)
    return shapes


def random_state(shapes: Shapes, seed: int = 0) -> State:
    """Numbers of a trained model's order of magnitude."""
    generator = torch.Generator().manual_seed(seed)
    state: State = {}
    for name, shape in shapes.items():
        noise = torch.randn(shape, generator=generator)
        if name.endswith("position_ids"):
            state[name] = torch.arange(shape[1])[None]
        elif len(shape) == 2 and "embeddings" not in name:
            state[name] = 1.2 * noise * shape[1] ** -0.5
        elif len(shape) == 4:
            state[name] = noise * math.prod(shape[1:]) ** -0.5
        elif len(shape) == 1:
            norm = ("norm" in name.lower() or name.startswith("ln_")) and name.endswith("weight")
            state[name] = float(norm) + 0.1 * noise
        else:
            state[name] = noise
    return state


def half_vision(state: State) -> State:
    """LAVIS's ``vit_precision: fp16``: linear and convolution layers, and only they, are halved."""
    suffixes = (".qkv.weight", ".proj.weight", ".proj.bias", ".weight", ".bias")
    return {
        name: value.half()
        if name.startswith("visual_encoder.") and name.endswith(suffixes) and ".norm" not in name
        else value
        for name, value in state.items()
    }


def save(state: State, path: Path, **more: Any) -> Path:
    """Save as LAVIS's runner does."""
    torch.save({"model": state, **more}, path)
    return path


def see(state: State, pixels: Tensor, size: Size) -> Tensor:
    """``ln_vision(visual_encoder(pixels))``: [B, 1 + patches, width]."""
    own = {name.removeprefix("visual_encoder."): value for name, value in state.items()}
    patches = conv2d(
        pixels, own["patch_embed.proj.weight"], own["patch_embed.proj.bias"], stride=size.patch
    )
    x = patches.flatten(2).transpose(1, 2)
    x = torch.cat((own["cls_token"].expand(len(x), -1, -1), x), dim=1) + own["pos_embed"]
    for number in range(size.depth):
        block = f"blocks.{number}"
        x = x + _eva_attention(own, f"{block}.attn", _normed(own, f"{block}.norm1", x, 1e-6), size)
        y = gelu(_apply(own, f"{block}.mlp.fc1", _normed(own, f"{block}.norm2", x, 1e-6)))
        x = x + _apply(own, f"{block}.mlp.fc2", y)
    return _normed(own, "ln_vision", x, 1e-5)  # LAVIS leaves it at torch's default


def _eva_attention(state: State, name: str, x: Tensor, size: Size) -> Tensor:
    batch, length, width = x.shape
    keys = torch.zeros(width)
    bias = torch.cat((state[f"{name}.q_bias"], keys, state[f"{name}.v_bias"]))
    qkv = linear(x, state[f"{name}.qkv.weight"], bias)
    q, k, v = qkv.reshape(batch, length, 3, size.heads, -1).permute(2, 0, 3, 1, 4)
    scores = (q * (width // size.heads) ** -0.5) @ k.transpose(-2, -1)
    mixed = (scores.softmax(dim=-1) @ v).transpose(1, 2).reshape(batch, length, width)
    return _apply(state, f"{name}.proj", mixed)


def attend(
    state: State, size: Size, queries: Tensor | None, seen: Tensor | None, ids: Tensor | None
) -> Tensor:
    """``Qformer.bert``: query tokens, then a text's words; [B, Q + T, hidden]."""
    bert = "Qformer.bert"
    embeddings = [] if queries is None else [queries]
    if ids is not None:
        words = state[f"{bert}.embeddings.word_embeddings.weight"][ids]
        positions = state[f"{bert}.embeddings.position_embeddings.weight"][: ids.shape[1]]
        embeddings.append(words + positions)
    x = _normed(state, f"{bert}.embeddings.LayerNorm", torch.cat(embeddings, dim=1), 1e-12)
    length = 0 if queries is None else queries.shape[1]
    for number in range(size.layers):
        layer = f"{bert}.encoder.layer.{number}"
        x = _bert_block(state, f"{layer}.attention", x, x, size)
        query_states, text_states = x[:, :length], x[:, length:]
        if length and seen is not None and number % 2 == 0:
            query_states = _bert_block(state, f"{layer}.crossattention", query_states, seen, size)
        out = [_feed(state, layer, "_query", query_states)] if length else []
        out += [_feed(state, layer, "", text_states)] if text_states.shape[1] else []
        x = torch.cat(out, dim=1)
    return x


def _bert_block(state: State, name: str, x: Tensor, seen: Tensor, size: Size) -> Tensor:
    def heads(part: str, value: Tensor) -> Tensor:
        found = _apply(state, f"{name}.self.{part}", value)
        return found.unflatten(-1, (size.qformer_heads, -1)).transpose(1, 2)

    q, k, v = heads("query", x), heads("key", seen), heads("value", seen)
    mixed = (q @ k.transpose(-1, -2) / q.shape[-1] ** 0.5).softmax(dim=-1) @ v
    out = _apply(state, f"{name}.output.dense", mixed.transpose(1, 2).flatten(2))
    return _normed(state, f"{name}.output.LayerNorm", out + x, 1e-12)


def _feed(state: State, layer: str, branch: str, x: Tensor) -> Tensor:
    inner = gelu(_apply(state, f"{layer}.intermediate{branch}.dense", x))
    out = _apply(state, f"{layer}.output{branch}.dense", inner)
    return _normed(state, f"{layer}.output{branch}.LayerNorm", out + x, 1e-12)


def match(state: State, size: Size, seen: Tensor, ids: Tensor) -> Tensor:
    """Blip2ITM with ``match_head="itm"``: [B, 2]."""
    queries = state["query_tokens"].expand(len(seen), -1, -1)
    out = attend(state, size, queries, seen, ids)[:, : size.queries]
    return _apply(state, "itm_head", out).mean(dim=1)


def contrast(state: State, size: Size, seen: Tensor, ids: Tensor) -> Tensor:
    """Blip2ITM with ``match_head="itc"``, every image with every text: [B, N]."""
    queries = state["query_tokens"].expand(len(seen), -1, -1)
    images = _apply(state, "vision_proj", attend(state, size, queries, seen, None))
    texts = _apply(state, "text_proj", attend(state, size, None, None, ids)[:, 0])
    scores = normalize(images, dim=-1) @ normalize(texts, dim=-1).t()
    return scores.max(dim=1).values


def _apply(state: State, name: str, x: Tensor) -> Tensor:
    return linear(x, state[f"{name}.weight"], state[f"{name}.bias"])


def _normed(state: State, name: str, x: Tensor, eps: float) -> Tensor:
    weight = state[f"{name}.weight"]
    return layer_norm(x, weight.shape, weight, state[f"{name}.bias"], eps)
