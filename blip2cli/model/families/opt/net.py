"""OPT's network, its weights named as in transformers' ``OPTForCausalLM`` (``modeling_opt.py``).

``layer`` and ``session`` run it.
"""

from __future__ import annotations

from torch import Tensor, nn

from blip2cli.model.families.opt.config import OptConfig
from blip2cli.model.layers.fused_projections import FusableProjections
from blip2cli.model.layers.linear import Linear
from blip2cli.model.layers.placed_layer import PlacedLayer
from blip2cli.model.layers.uninitialized import Embedding, LayerNorm

OFFSET = 2  # positions begin behind two rows that older OPT code used for padding


class Opt(nn.Module):
    """Decoder and output matrix."""

    def __init__(self, config: OptConfig) -> None:
        super().__init__()
        self.config = config
        self.model = Model(config)
        self.lm_head = Linear(config.embed_width, config.vocab_size, bias=False)

    @property
    def input_embeddings(self) -> Embedding:
        """The embedding of the tokens that are read."""
        return self.model.decoder.embed_tokens

    @property
    def decoder(self) -> Decoder:
        """Embeddings and layers."""
        return self.model.decoder


class Model(nn.Module):
    """The outer name of the decoder's weights."""

    def __init__(self, config: OptConfig) -> None:
        super().__init__()
        self.decoder = Decoder(config)


class Decoder(nn.Module):
    """Embeddings and layers."""

    def __init__(self, config: OptConfig) -> None:
        super().__init__()
        width, narrow = config.hidden_size, config.embed_width
        self.embed_tokens = Embedding(config.vocab_size, narrow)
        self.embed_positions = Embedding(config.max_position_embeddings + OFFSET, width)
        self.project_out = None if narrow == width else Linear(width, narrow, bias=False)
        self.project_in = None if narrow == width else Linear(narrow, width, bias=False)
        ends_normed = config.do_layer_norm_before and not config._remove_final_layer_norm
        self.final_layer_norm = _norm(config) if ends_normed else None
        self.layers = nn.ModuleList(Layer(config) for _ in range(config.num_hidden_layers))

    def place(self, embeds: Tensor, positions: Tensor) -> Tensor:
        """Token embeddings or image inputs, with those of their positions added.

        Positions of padding may exceed the last one.
        """
        if self.project_in is not None:
            embeds = self.project_in(embeds)
        last = self.embed_positions.num_embeddings - 1
        placed: Tensor = embeds + self.embed_positions((positions + OFFSET).clamp(max=last))
        return placed

    def rotation(self, positions: Tensor) -> None:
        """None: positions are embedded, and nothing is turned."""

    def leave(self, hidden: Tensor) -> Tensor:
        """Hidden states of the last layer as the output matrix reads them."""
        if self.final_layer_norm is not None:
            hidden = self.final_layer_norm(hidden)
        return hidden if self.project_out is None else self.project_out(hidden)


class Layer(PlacedLayer):
    """One layer; OPT-350m has its norms behind attention and feed-forward, others in front."""

    def __init__(self, config: OptConfig) -> None:
        super().__init__()
        width, biased = config.hidden_size, config.enable_bias
        self.do_layer_norm_before = config.do_layer_norm_before
        self.self_attn = Attention(config)
        self.self_attn_layer_norm = _norm(config)
        self.fc1 = Linear(width, config.ffn_dim, biased, config.activation_function)
        self.fc2 = Linear(config.ffn_dim, width, biased)
        self.final_layer_norm = _norm(config)

    @property
    def gemm(self) -> Linear:
        """The layer whose products say how many sequences run together."""
        return self.fc1

    def project(self, hidden: Tensor, rotation: None) -> tuple[Tensor, Tensor]:
        """Query of hidden states [R, T, D], [R, T, heads, head size], and key and value, [R, T, 2,
        heads, head size]."""
        attention = self.self_attn
        if self.do_layer_norm_before:
            hidden = self.self_attn_layer_norm(hidden)
        together = attention.project_together(hidden, "q_proj", "k_proj", "v_proj")
        together = together.unflatten(3, (attention.num_heads, attention.head_dim))
        return together[:, :, 0], together[:, :, 1:]

    def finish(self, hidden: Tensor, attended: Tensor) -> Tensor:
        """The rest of a layer, behind its attention."""
        hidden = self.self_attn.out_proj(attended, hidden)
        if not self.do_layer_norm_before:
            hidden = self.self_attn_layer_norm(hidden)
        inner = self.final_layer_norm(hidden) if self.do_layer_norm_before else hidden
        hidden = self.fc2(self.fc1(inner), hidden)
        return hidden if self.do_layer_norm_before else self.final_layer_norm(hidden)


class Attention(FusableProjections):
    """The four linear layers of an attention."""

    FUSABLE = (("q_proj", "k_proj", "v_proj"),)

    def __init__(self, config: OptConfig) -> None:
        super().__init__()
        width, biased = config.hidden_size, config.enable_bias
        self.num_heads = config.num_attention_heads
        self.head_dim = width // self.num_heads
        self.scaling = self.head_dim**-0.5
        self.k_proj = Linear(width, width, biased)
        self.v_proj = Linear(width, width, biased)
        self.q_proj = Linear(width, width, biased)
        self.out_proj = Linear(width, width, biased)


def _norm(config: OptConfig) -> LayerNorm:
    return LayerNorm(config.hidden_size, elementwise_affine=config.layer_norm_elementwise_affine)
