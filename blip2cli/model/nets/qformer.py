"""The querying transformer (arXiv 2301.12597, section 3.1), as transformers' ``Blip2QFormerModel``
and ``Blip2TextEmbeddings`` in ``modeling_blip_2.py``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from blip2cli.model.checkpoint.config import QFormerConfig
from blip2cli.model.layers.attention import full_attention
from blip2cli.model.layers.fused_projections import FusableProjections
from blip2cli.model.layers.linear import Linear
from blip2cli.model.layers.placed_layer import PlacedLayer
from blip2cli.model.layers.uninitialized import Embedding, LayerNorm


class QFormer(nn.Module):
    """Query tokens attend to an image's patches, and to a text beside them."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.config = config
        self.layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.encoder = Encoder(config)

    @property
    def norm(self) -> LayerNorm:
        """The norm of embeddings."""
        return self.layernorm

    def forward(
        self,
        embeds: Tensor,
        images: Tensor | None = None,
        queries: int | None = None,
        owners: Tensor | None = None,
    ) -> Tensor:
        """Embeddings [B, T, D], the first ``queries`` of them query tokens, to states [B, T, D].

        ``queries`` None: all are. ``images`` [B, P+1, Dv] are what queries cross-attend to; with
        ``owners`` [B] there are fewer, and sequence i attends to image ``owners[i]``.
        Without a text, query tokens may be [1, Q, D], the same for every image.
        """
        norm = self.norm
        dtype = norm.weight.dtype
        queries = embeds.shape[1] if queries is None else queries
        images = None if images is None else images.to(dtype)
        hidden: Tensor = norm(embeds.to(dtype))
        for layer in self.encoder.layer:
            hidden = layer(hidden, images, queries, owners)
        return hidden.to(embeds.device)


class InstructedQFormer(QFormer):
    """InstructBLIP's, which reads the prompt beside the image (arXiv 2305.06500, section 2.3), as
    transformers' ``InstructBlipQFormerModel`` in ``modeling_instructblip.py``."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__(config)
        self.embeddings = TextEmbeddings(config)
        self.embeddings.layernorm = self.layernorm
        del self.layernorm

    @property
    def norm(self) -> LayerNorm:
        """The norm of embeddings."""
        norm: Any = self.embeddings.layernorm
        return norm  # type: ignore[no-any-return]


class Encoder(nn.Module):
    """All layers; every ``cross_attention_frequency``-th one attends to the image."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        every = config.cross_attention_frequency
        self.layer = nn.ModuleList(
            Layer(config, crossing=number % every == 0)
            for number in range(config.num_hidden_layers)
        )


class Layer(PlacedLayer):
    """Self-attention, cross-attention of the queries, and a feed-forward network for each kind."""

    def __init__(self, config: QFormerConfig, crossing: bool) -> None:
        super().__init__()
        self.attention = Block(config, config.hidden_size)
        self.crossattention = Block(config, config.encoder_hidden_size, True) if crossing else None
        if config.use_qformer_text_input:
            self.intermediate = Intermediate(config)
            self.output = Output(config, config.intermediate_size)
        self.intermediate_query = Intermediate(config)
        self.output_query = Output(config, config.intermediate_size)

    def forward(
        self, hidden: Tensor, images: Tensor | None, queries: int, owners: Tensor | None = None
    ) -> Tensor:
        """[B, T, D] to the same."""
        (hidden,) = self.receive(hidden)
        if images is not None:
            (images,) = self.receive(images)
        hidden = self.attention(hidden)
        outputs = []
        if queries:
            query_states = hidden[:, :queries]
            if self.crossattention is not None:
                assert images is not None  # queries always have an image
                query_states = self.crossattention(query_states, images, owners)
            outputs.append(self.output_query(self.intermediate_query(query_states), query_states))
        if hidden.shape[1] > queries:
            words = hidden[:, queries:]
            outputs.append(self.output(self.intermediate(words), words))
        return outputs[0] if len(outputs) == 1 else torch.cat(outputs, dim=1)


class Block(nn.Module):
    """Attention and its output projection."""

    def __init__(self, config: QFormerConfig, seen: int, crossing: bool = False) -> None:
        super().__init__()
        self.attention = (CrossAttention if crossing else SelfAttention)(config, seen)
        self.output = Output(config, config.hidden_size)

    def forward(
        self, hidden: Tensor, images: Tensor | None = None, owners: Tensor | None = None
    ) -> Tensor:
        """[B, T, D] to the same."""
        if images is not None and len(hidden) == 1:
            hidden = hidden.expand(len(images), -1, -1)
        query, key, value = self.attention.project_qkv(hidden, images, owners)
        after: Tensor = self.output(full_attention(query, key, value), hidden)
        return after


class SelfAttention(FusableProjections):
    """Query, key and value of the same states."""

    FUSABLE: ClassVar[tuple[tuple[str, ...], ...]] = (("query", "key", "value"),)

    def __init__(self, config: QFormerConfig, seen: int) -> None:
        super().__init__()
        self.heads = config.num_attention_heads
        self.query = Linear(config.hidden_size, config.hidden_size)
        self.key = Linear(seen, config.hidden_size)
        self.value = Linear(seen, config.hidden_size)

    def project_qkv(
        self, hidden: Tensor, images: Tensor | None, owners: Tensor | None
    ) -> Sequence[Tensor]:
        """Query, key and value, [B, heads, positions, head size] each."""
        return [self.split_heads(each) for each in self.project(hidden, "query", "key", "value")]

    def split_heads(self, states: Tensor) -> Tensor:
        """[B, T, D] to [B, heads, T, head size]."""
        heads: Tensor = states.unflatten(2, (self.heads, -1)).transpose(1, 2)
        return heads


class CrossAttention(SelfAttention):
    """Keys and values of an image's patches."""

    FUSABLE = (("key", "value"),)

    def project_qkv(
        self, hidden: Tensor, images: Tensor | None, owners: Tensor | None
    ) -> Sequence[Tensor]:
        """Query, key and value, [B, heads, positions, head size] each."""
        assert images is not None
        read = self.project(images, "key", "value")
        if owners is not None:
            read = [each[owners.to(each.device)] for each in read]
        return [self.split_heads(each) for each in (self.query(hidden), *read)]


class Intermediate(nn.Module):
    """The first feed-forward layer."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.dense = Linear(
            config.hidden_size, config.intermediate_size, activation=config.hidden_act
        )

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, D] to [B, T, inner]."""
        wide: Tensor = self.dense(hidden)
        return wide


class Output(nn.Module):
    """Projection to the width of the states, residual and layer norm."""

    def __init__(self, config: QFormerConfig, inner: int) -> None:
        super().__init__()
        self.dense = Linear(inner, config.hidden_size)
        self.LayerNorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, states: Tensor, hidden: Tensor) -> Tensor:
        """[B, T, inner] and [B, T, D] to [B, T, D]."""
        normed: Tensor = self.LayerNorm(self.dense(states, hidden))
        return normed


class TextEmbeddings(nn.Module):
    """Token and position embeddings."""

    def __init__(self, config: QFormerConfig) -> None:
        super().__init__()
        self.word_embeddings = Embedding(config.vocab_size, config.hidden_size)
        self.position_embeddings = Embedding(config.max_position_embeddings, config.hidden_size)

    def forward(self, ids: Tensor, queries: Tensor | None = None) -> Tensor:
        """Ids [N, T] to [N, T, D], behind query tokens [N, Q, D] if they are given."""
        words: Tensor = self.word_embeddings(ids) + self.position_embeddings.weight[: ids.shape[1]]
        if queries is None:
            return words
        return torch.cat((queries.to(words.dtype), words), dim=1)
