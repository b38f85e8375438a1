"""T5's encoder and decoder, as transformers' ``T5ForConditionalGeneration`` (``modeling_t5.py``).

``session`` writes texts with it.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from blip2cli.model.families.t5.config import T5Config
from blip2cli.model.families.t5.feed_forward import FeedForwardLayer
from blip2cli.model.families.t5.norm import Norm
from blip2cli.model.layers.attention import (
    aligned,
    attention_scores,
    fused_attention,
    uses_fused_kernels,
)
from blip2cli.model.layers.fused_projections import FusableProjections
from blip2cli.model.layers.linear import Linear, merge_sequences, split_sequences
from blip2cli.model.layers.placed_layer import PlacedLayer
from blip2cli.model.layers.uninitialized import Embedding


class T5(nn.Module):
    """Embeddings, encoder, decoder and output matrix."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.config = config
        self.shared = Embedding(config.vocab_size, config.d_model)
        self.decoder_embedding: Embedding | None = None  # None: the decoder reads ``shared``, too
        self.encoder = Stack(config, config.num_layers, decoding=False)
        self.decoder = Stack(config, config.num_decoder_layers or config.num_layers, decoding=True)
        self.lm_head = Linear(config.d_model, config.vocab_size, bias=False)

    @property
    def input_embeddings(self) -> Embedding:
        """The embedding of the tokens that are read."""
        return self.shared

    @property
    def written_embeddings(self) -> Embedding:
        """The embedding of the tokens that were written, as the decoder reads them."""
        return self.shared if self.decoder_embedding is None else self.decoder_embedding

    def separate_words(self) -> None:
        """Give the decoder an embedding of its own, as adapters may."""
        self.decoder_embedding = Embedding(self.config.vocab_size, self.config.d_model)


class Stack(nn.Module):
    """All layers of the encoder or of the decoder."""

    def __init__(self, config: T5Config, layers: int, decoding: bool) -> None:
        super().__init__()
        self.decoding = decoding
        self.block: Any = nn.ModuleList(
            Block(config, decoding, first=number == 0) for number in range(layers)
        )
        self.final_layer_norm = Norm(config)

    def bias(self, positions: int) -> Tensor:
        """Relative position bias of attention scores, [heads, T, T]."""
        attention: Attention = self.block[0].layer[0].SelfAttention
        return attention.compute_bias(positions, bidirectional=not self.decoding)

    def forward(
        self,
        hidden: Tensor,
        encoder_states: Tensor | None = None,
        rows: Tensor | None = None,
    ) -> Tensor:
        """Embeddings [N, T, D] to the last layer's states, normed, [N, T, D].

        The decoder attends to no later position than its own, and each of its rows to one of
        ``encoder_states`` [U, R, D], the one that ``rows`` [N] names.
        """
        positions = hidden.shape[1]
        bias = self.bias(positions).to(hidden.device)
        if self.decoding:
            place = torch.arange(positions, device=hidden.device)
            bias = bias.masked_fill(place > place[:, None], -torch.inf)
        bias = aligned(bias)
        groups = split_sequences(hidden, self.block[0].layer[0].SelfAttention.o)
        for block in self.block:
            bias, *groups = block.receive(bias, *groups)
            groups = [block.layer[0](group, bias) for group in groups]
            if encoder_states is not None:
                assert rows is not None
                encoder_states, rows = block.receive(encoder_states, rows)
                seen = (each[rows] for each in block.layer[1].keys_values(encoder_states))
                pairs = zip(*(each.split(len(groups[0])) for each in seen), strict=True)
                groups = [
                    block.layer[1](group, *pair) for group, pair in zip(groups, pairs, strict=True)
                ]
            groups = [block.layer[-1](group) for group in groups]
        normed: Tensor = self.final_layer_norm(merge_sequences(groups).to(hidden.device))
        return normed


class Block(PlacedLayer):
    """A layer: self-attention, in the decoder cross-attention, and feed-forward."""

    def __init__(self, config: T5Config, decoding: bool, first: bool) -> None:
        super().__init__()
        sublayers: list[nn.Module] = [SelfAttentionLayer(config, first)]
        if decoding:
            sublayers.append(CrossAttentionLayer(config))
        self.layer = nn.ModuleList([*sublayers, FeedForwardLayer(config)])


class SelfAttentionLayer(nn.Module):
    """Self-attention, with norm and residual."""

    def __init__(self, config: T5Config, first: bool) -> None:
        super().__init__()
        self.SelfAttention = SelfAttention(config, first)
        self.layer_norm = Norm(config)

    def forward(self, hidden: Tensor, bias: Tensor) -> Tensor:
        """[N, T, D] to the same."""
        attention = self.SelfAttention
        query, key, value = attention.split_heads(self.layer_norm(hidden), "q", "k", "v")
        after: Tensor = attention.o(attend(query, key, value, bias), hidden)
        return after

    def project_one(self, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """Query [N, heads, 1, head size] of the states of one position, [N, 1, D], and its key and
        value, [N, 2, heads, head size]."""
        together = self.SelfAttention.heads_together(self.layer_norm(hidden), "q", "k", "v")[:, 0]
        query = together[:, 0, :, None]
        return query if uses_fused_kernels(hidden) else query.contiguous(), together[:, 1:]


class CrossAttentionLayer(nn.Module):
    """Cross-attention to the encoder's states, with norm and residual."""

    def __init__(self, config: T5Config) -> None:
        super().__init__()
        self.EncDecAttention = CrossAttention(config)
        self.layer_norm = Norm(config)

    def keys_values(self, encoder_states: Tensor) -> list[Tensor]:
        """Keys and values of encoder states [U, R, D]: [U, heads, R, head size] each."""
        return self.EncDecAttention.split_heads(encoder_states, "k", "v")

    def forward(
        self, hidden: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None
    ) -> Tensor:
        """[N, T, D] to the same; keys and values are [N, heads, R, head size]."""
        attention = self.EncDecAttention
        (query,) = attention.split_heads(self.layer_norm(hidden), "q")
        after: Tensor = attention.o(attend(query, key, value, mask), hidden)
        return after


class Attention(FusableProjections):
    """The four linear layers of an attention; the first of a stack knows distances."""

    def __init__(self, config: T5Config, first: bool = False) -> None:
        super().__init__()
        inner = config.num_heads * config.d_kv
        self.n_heads = config.num_heads
        self.key_value_proj_dim = config.d_kv
        self.distance = config.relative_attention_max_distance
        self.q = Linear(config.d_model, inner, bias=False)
        self.k = Linear(config.d_model, inner, bias=False)
        self.v = Linear(config.d_model, inner, bias=False)
        self.o = Linear(inner, config.d_model, bias=False)
        if first:
            self.relative_attention_bias = Embedding(
                config.relative_attention_num_buckets, config.num_heads
            )

    def split_heads(self, states: Tensor, *names: str) -> list[Tensor]:
        """Queries, keys or values of states [N, T, D]: [N, heads, T, head size] each.

        Contiguous in memory, but for fused kernels: see ``project`` in ``families/opt/layer.py``.
        """
        heads = [each.transpose(1, 2) for each in self.heads_together(states, *names).unbind(2)]
        return heads if uses_fused_kernels(states) else [each.contiguous() for each in heads]

    def heads_together(self, states: Tensor, *names: str) -> Tensor:
        """The same, side by side: [N, T, names, heads, head size]."""
        together: Any = self.project_together(states, *names)
        heads: Tensor = together.unflatten(3, (self.n_heads, self.key_value_proj_dim))
        return heads

    def compute_bias(self, positions: int, bidirectional: bool) -> Tensor:
        """Relative position bias, [heads, position, position attended to]."""
        place = torch.arange(positions, device=self.relative_attention_bias.weight.device)
        buckets = self.relative_attention_bias.num_embeddings
        found = bucket(place - place[:, None], bidirectional, buckets, self.distance)
        bias: Tensor = self.relative_attention_bias(found).permute(2, 0, 1).contiguous()
        return bias


class SelfAttention(Attention):
    """Query, key and value of the same states."""

    FUSABLE = (("q", "k", "v"),)


class CrossAttention(Attention):
    """Keys and values of the encoder's states."""

    FUSABLE = (("k", "v"),)


def attend(query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None = None) -> Tensor:
    """T5's attention, which does not scale, [N, T, heads × size]; by plain matrix products where
    there is no fused kernel."""
    if uses_fused_kernels(query):
        return fused_attention(query, key, value, bias, scale=1.0)
    scores = attention_scores(query, key)
    if bias is not None:
        scores = scores.add_(bias)
    attended: Tensor = (scores.softmax(dim=-1) @ value).transpose(1, 2).flatten(2)
    return attended


def bucket(distance: Tensor, bidirectional: bool, buckets: int, farthest: int) -> Tensor:
    """The bucket of each distance (arXiv 1910.10683, section 2.1): small ones have one each,
    larger ones share by their logarithm, all from ``farthest`` on the last."""
    found = torch.zeros_like(distance)
    if bidirectional:
        buckets //= 2
        found = (distance > 0) * buckets
        distance = distance.abs()
    else:
        distance = (-distance).clamp(min=0)
    exact = buckets // 2
    growth = torch.log(distance.float() / exact) / math.log(farthest / exact) * (buckets - exact)
    far = (exact + growth.clamp(min=0).long()).clamp(max=buckets - 1)
    return found + torch.where(distance < exact, distance, far)
