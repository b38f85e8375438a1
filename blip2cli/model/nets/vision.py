"""The image encoder (ViT-g of EVA-CLIP in published models), as transformers'
``Blip2VisionModel`` in ``modeling_blip_2.py``."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from blip2cli.model.checkpoint.config import VisionConfig, patches
from blip2cli.model.layers.attention import full_attention
from blip2cli.model.layers.linear import Linear, merge_sequences, split_sequences
from blip2cli.model.layers.placed_layer import PlacedLayer
from blip2cli.model.layers.uninitialized import Conv2d, LayerNorm


class VisionModel(nn.Module):
    """Pixels to the hidden states of patches."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Embeddings(config)
        norm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.pre_layernorm = norm if config.pre_layernorm else None
        self.encoder = Encoder(config)
        self.post_layernorm = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)

    def forward(self, pixel_values: Tensor) -> tuple[Tensor, Tensor]:
        """From pixels [B, 3, H, W] to all patches [B, P+1, D], class token first, and that token
        normed once more, [B, D]."""
        embedded = self.embeddings(pixel_values)
        if self.pre_layernorm is not None:
            embedded = self.pre_layernorm(embedded)
        states = self.encoder(embedded).to(pixel_values.device)
        states = self.post_layernorm(states)
        return states, self.post_layernorm(states[:, 0])


class Embeddings(nn.Module):
    """Patch embeddings, a class token before them, and position embeddings."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, patch = config.hidden_size, config.patch_size
        self.class_embedding = nn.Parameter(torch.empty(1, 1, width))
        self.patch_embedding = Conv2d(3, width, patch, patch)
        self.position_embedding = nn.Parameter(torch.empty(1, patches(config), width))

    def forward(self, pixel_values: Tensor) -> Tensor:
        """[B, 3, H, W] to [B, P+1, D]."""
        seen = self.patch_embedding(pixel_values).flatten(2).transpose(1, 2)
        first = self.class_embedding.expand(len(seen), -1, -1)
        return torch.cat((first, seen), dim=1).add_(self.position_embedding)


class Encoder(nn.Module):
    """All layers."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))
        self.images_together = 0  # in each layer, the chunks one behind another; 0: any number

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, D] to the same."""
        first: Any = self.layers[0]
        chunks = hidden.split(self.images_together) if self.images_together else [hidden]
        groups = [group for chunk in chunks for group in split_sequences(chunk, first.mlp.fc1)]
        for layer in self.layers:
            groups = [layer(group) for group in groups]
        return merge_sequences(groups)


class Layer(PlacedLayer):
    """Attention and a feed-forward network, pre-norm, with residuals."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        self.layer_norm1 = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = Attention(config)
        self.layer_norm2 = LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = Mlp(config)

    def forward(self, hidden: Tensor) -> Tensor:
        """[B, T, D] to the same."""
        (hidden,) = self.receive(hidden)
        hidden = self.self_attn(self.layer_norm1(hidden), hidden)
        after: Tensor = self.mlp(self.layer_norm2(hidden), hidden)
        return after


class Attention(nn.Module):
    """Self-attention over all patches."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width = config.hidden_size
        self.heads = config.num_attention_heads
        self.qkv = Linear(width, 3 * width, config.qkv_bias)
        self.projection = Linear(width, width)

    def forward(self, normed: Tensor, hidden: Tensor) -> Tensor:
        """Of normed states [B, T, D], ``hidden`` added as residual."""
        apart = self.qkv(normed).unflatten(2, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = apart.unbind()
        added: Tensor = self.projection(full_attention(query, key, value), hidden)
        return added


class Mlp(nn.Module):
    """The feed-forward network."""

    def __init__(self, config: VisionConfig) -> None:
        super().__init__()
        width, inner = config.hidden_size, config.intermediate_size
        self.fc1 = Linear(width, inner, activation=config.hidden_act)
        self.fc2 = Linear(inner, width)

    def forward(self, normed: Tensor, hidden: Tensor) -> Tensor:
        """Of normed states [B, T, D], ``hidden`` added as residual."""
        added: Tensor = self.fc2(self.fc1(normed), hidden)
        return added
