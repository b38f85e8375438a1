"""Llama's section of ``config.json``, as transformers' ``LlamaConfig``
(``configuration_llama.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blip2cli.errors import ModelError
from blip2cli.model.families.base import TextConfig, TextSize


@dataclass(frozen=True)
class LlamaConfig(TextConfig):
    """Llama; Vicuna is a fine-tuned one."""

    vocab_size: int = 32000
    hidden_size: int = 4096
    intermediate_size: int = 11008
    num_hidden_layers: int = 32
    num_attention_heads: int = 32
    num_key_value_heads: int | None = None  # None: as many as there are heads
    head_dim: int | None = None  # None: the width is shared by the heads
    hidden_act: str = "silu"
    max_position_embeddings: int = 2048
    rms_norm_eps: float = 1e-6
    rope_theta: float = 10000.0
    rope_scaling: Any = None  # older files; newer ones have both under ``rope_parameters``
    rope_parameters: Any = None
    attention_bias: bool = False
    mlp_bias: bool = False
    tie_word_embeddings: bool = False
    pad_token_id: int | None = None
    bos_token_id: int | None = 1
    eos_token_id: Any = 2

    def __post_init__(self) -> None:
        heads, shared = self.num_attention_heads, self.key_value_heads
        if heads % shared:
            raise ModelError(
                None,
                f"config.json says num_key_value_heads: {shared}, which do not divide the "
                f"num_attention_heads, {heads}",
                "take config.json from the model that the weights are from",
            )
        for rope in (self.rope_scaling, self.rope_parameters):
            found = rope or {}
            kind = found.get("rope_type", found.get("type", "default"))
            if kind != "default":
                raise ModelError(
                    None,
                    f"the language model stretches its positions by {kind} (rope_type in "
                    "config.json), which is not supported",
                    "use a model with plain rotary positions, as Vicuna has",
                )

    @property
    def theta(self) -> float:
        """The base of the frequencies of rotary positions (arXiv 2104.09864)."""
        return float((self.rope_parameters or {}).get("rope_theta", self.rope_theta))

    @property
    def head_width(self) -> int:
        """Width of a head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads

    @property
    def key_value_heads(self) -> int:
        """How many heads have keys and values of their own."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def width(self) -> int:
        return self.hidden_size

    @property
    def embed_width(self) -> int:
        return self.hidden_size

    @property
    def positions(self) -> int | None:
        return self.max_position_embeddings

    @property
    def ties_embeddings(self) -> bool:
        return self.tie_word_embeddings

    @property
    def size(self) -> TextSize:
        width, inner, layers = self.hidden_size, self.intermediate_size, self.num_hidden_layers
        heads = self.num_attention_heads * self.head_width
        weights = layers * (4 * width * heads + 3 * width * inner) + 2 * self.vocab_size * width
        return TextSize(width, inner, 2 * layers * heads, self.vocab_size, weights)
