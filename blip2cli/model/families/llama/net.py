"""Llama's network, its weights named as in transformers' ``LlamaForCausalLM``
(``modeling_llama.py``).

It is a decoder with the parts of OPT's: ``families/opt/session`` and ``kv_slots`` run it.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from blip2cli.model.families.llama.config import LlamaConfig
from blip2cli.model.layers.fused_projections import FusableProjections
from blip2cli.model.layers.linear import Linear
from blip2cli.model.layers.placed_layer import PlacedLayer
from blip2cli.model.layers.rms_norm import RMSNorm
from blip2cli.model.layers.uninitialized import Embedding

Rotation = tuple[Tensor, Tensor]  # cosines and sines, [T, 1, head size] or of each row, see below


class Llama(nn.Module):
    """Decoder and output matrix."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Decoder(config)
        self.lm_head = Linear(config.hidden_size, config.vocab_size, bias=False)

    @property
    def input_embeddings(self) -> Embedding:
        """The embedding of the tokens that are read."""
        return self.model.embed_tokens

    @property
    def decoder(self) -> Decoder:
        """Embeddings and layers."""
        return self.model


class Decoder(nn.Module):
    """Embeddings and layers."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.config = config
        self.embed_tokens = Embedding(config.vocab_size, config.hidden_size)
        self.layers = nn.ModuleList(_layer(config) for _ in range(config.num_hidden_layers))
        self.norm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self._rotations: dict[tuple[torch.device, torch.dtype], Rotation] = {}

    def place(self, embeds: Tensor, positions: Tensor) -> Tensor:
        """The embeddings as they are: positions are in the rotation."""
        return embeds

    def rotation(self, positions: Tensor) -> Rotation:
        """Cosines and sines by which queries and keys [R, T, heads, head size] are turned.

        ``positions`` are [T], or [R, T] where rows have their own: then both are [R, T, 1, head
        size], else [T, 1, head size]. Those of padding may exceed the last one. All are of one
        table, so that a position has the same bits wherever it stands.
        """
        kind = positions.device, self.norm.weight.dtype
        if kind not in self._rotations:
            self._rotations[kind] = self._table(*kind)
        cosines, sines = self._rotations[kind]
        positions = positions.clamp(max=len(cosines) - 1)[..., None]
        return cosines[positions], sines[positions]

    def _table(self, device: torch.device, dtype: torch.dtype) -> Rotation:
        """Of all positions, [P, head size] each; the first half of the sines is negative."""
        size = self.config.head_width
        with torch.device(device):
            exponents = torch.arange(0, size, 2, dtype=torch.float) / size
            frequencies = 1.0 / self.config.theta**exponents
            positions = torch.arange(self.config.max_position_embeddings, dtype=torch.float)
            angles = positions[:, None] * frequencies
            sines = angles.sin()
            cosines = torch.cat((angles.cos(), angles.cos()), dim=1)
            return cosines.to(dtype), torch.cat((-sines, sines), dim=1).to(dtype)

    def leave(self, hidden: Tensor) -> Tensor:
        """Hidden states of the last layer as the output matrix reads them."""
        normed: Tensor = self.norm(hidden)
        return normed


class Layer(PlacedLayer):
    """One layer, pre-norm, with residuals."""

    def __init__(self, config: LlamaConfig, attention: Attention) -> None:
        super().__init__()
        self.self_attn = attention
        self.mlp = Mlp(config)
        self.input_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)
        self.post_attention_layernorm = RMSNorm(config.hidden_size, config.rms_norm_eps)

    @property
    def gemm(self) -> Linear:
        """The layer whose products say how many sequences run together."""
        return self.mlp.gate_proj

    def project(self, hidden: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """Query of hidden states [R, T, D], [R, T, heads, head size], and key and value, [R, T, 2,
        heads, head size]."""
        return self.self_attn.project_qkv(self.input_layernorm(hidden), rotation)

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """The rest of a layer, behind its attention."""
        hidden = self.self_attn.o_proj(attended, hidden)
        after: Tensor = self.mlp(self.post_attention_layernorm(hidden), hidden)
        return after


class Attention(FusableProjections):
    """The four linear layers of an attention with rotary positions (arXiv 2104.09864)."""

    FUSABLE: ClassVar[tuple[tuple[str, ...], ...]] = (("q_proj", "k_proj", "v_proj"),)

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        width, biased = config.hidden_size, config.attention_bias
        self.num_heads = config.num_attention_heads
        self.head_dim = config.head_width
        self.groups = config.num_attention_heads // config.key_value_heads
        self.scaling = self.head_dim**-0.5
        inner, shared = self.num_heads * self.head_dim, config.key_value_heads * self.head_dim
        self.q_proj = Linear(width, inner, biased)
        self.k_proj = Linear(width, shared, biased)
        self.v_proj = Linear(width, shared, biased)
        self.o_proj = Linear(inner, width, biased)

    def project_qkv(self, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """Query [R, T, heads, head size], and key and value [R, T, 2, heads, head size]."""
        together = self.project_together(normed, "q_proj", "k_proj", "v_proj")
        together = together.unflatten(3, (-1, self.head_dim))
        turned = together[:, :, :2]
        cosines, sines = (each.to(turned.device).unsqueeze(-3) for each in rotation)
        turned.copy_(_rotate(turned, cosines, sines))
        return together[:, :, 0], together[:, :, 1:]


class GroupedAttention(Attention):
    """Attention whose keys and values serve several heads each (arXiv 2305.13245)."""

    FUSABLE = ()  # the projections are of unequal widths

    def project_qkv(self, normed: Tensor, rotation: Rotation) -> tuple[Tensor, Tensor]:
        """Query [R, T, heads, head size], and key and value [R, T, 2, heads, head size]."""
        projected = self.project(normed, "q_proj", "k_proj", "v_proj")
        query, key, value = (each.unflatten(2, (-1, self.head_dim)) for each in projected)
        cosines, sines = (each.to(query.device) for each in rotation)
        query, key = (_rotate(each, cosines, sines) for each in (query, key))
        key, value = (each.repeat_interleave(self.groups, dim=2) for each in (key, value))
        return query, torch.stack((key, value), dim=2)


class Mlp(nn.Module):
    """The feed-forward network, whose inner states are gated (arXiv 2002.05202)."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        width, inner, biased = config.hidden_size, config.intermediate_size, config.mlp_bias
        self.gate_proj = Linear(width, inner, biased, config.hidden_act)
        self.up_proj = Linear(width, inner, biased)
        self.down_proj = Linear(inner, width, biased)

    def forward(self, normed: Tensor, hidden: Tensor) -> Tensor:
        """Normed states [R, T, D], added to ``hidden``."""
        after: Tensor = self.down_proj(self.gate_proj(normed).mul_(self.up_proj(normed)), hidden)
        return after


def _layer(config: LlamaConfig) -> Layer:
    grouped = config.key_value_heads != config.num_attention_heads
    return Layer(config, (GroupedAttention if grouped else Attention)(config))


def _rotate(states: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn pairs of numbers, one of each half of a head: states [R, T, ..., heads, head size]."""
    turned = states * cosines
    return turned.add_(states.roll(states.shape[-1] // 2, -1).mul_(sines))
