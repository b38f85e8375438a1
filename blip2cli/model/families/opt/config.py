"""OPT's section of ``config.json``, as transformers' ``OPTConfig`` (``configuration_opt.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blip2cli.model.families.base import TextConfig, TextSize


@dataclass(frozen=True)
class OptConfig(TextConfig):
    """OPT."""

    vocab_size: int = 50272
    hidden_size: int = 768
    num_hidden_layers: int = 12
    ffn_dim: int = 3072
    max_position_embeddings: int = 2048
    do_layer_norm_before: bool = True
    _remove_final_layer_norm: bool = False
    word_embed_proj_dim: int | None = None  # None: as wide as the layers
    num_attention_heads: int = 12
    activation_function: str = "relu"
    pad_token_id: int | None = 1
    bos_token_id: int | None = 2
    eos_token_id: Any = 2
    enable_bias: bool = True
    layer_norm_elementwise_affine: bool = True
    tie_word_embeddings: bool = True

    @property
    def width(self) -> int:
        return self.hidden_size

    @property
    def embed_width(self) -> int:
        return self.word_embed_proj_dim or self.hidden_size

    @property
    def positions(self) -> int | None:
        return self.max_position_embeddings

    @property
    def ties_embeddings(self) -> bool:
        return self.tie_word_embeddings

    @property
    def size(self) -> TextSize:
        width, inner, layers = self.hidden_size, self.ffn_dim, self.num_hidden_layers
        weights = layers * (4 * width * width + 2 * width * inner)
        weights += self.vocab_size * self.embed_width
        return TextSize(width, inner, 2 * layers * width, self.vocab_size, weights)
