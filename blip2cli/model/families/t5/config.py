"""T5's section of ``config.json``, as transformers' ``T5Config`` (``configuration_t5.py``)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from blip2cli.model.families.base import TextConfig, TextSize


@dataclass(frozen=True)
class T5Config(TextConfig):
    """T5, or Flan-T5."""

    vocab_size: int = 32128
    d_model: int = 512
    d_kv: int = 64
    d_ff: int = 2048
    num_layers: int = 6
    num_decoder_layers: int | None = None  # None: as many as the encoder has
    num_heads: int = 8
    relative_attention_num_buckets: int = 32
    relative_attention_max_distance: int = 128
    layer_norm_epsilon: float = 1e-6
    feed_forward_proj: str = "relu"
    # None: what ``feed_forward_proj`` says.
    dense_act_fn: str | None = None
    is_gated_act: bool | None = None
    # transformers takes the former to mean the latter, and writes the latter.
    tie_word_embeddings: bool | None = None
    scale_decoder_outputs: bool | None = None
    pad_token_id: int | None = 0
    bos_token_id: int | None = None
    eos_token_id: Any = 1
    decoder_start_token_id: int | None = None

    @property
    def width(self) -> int:
        return self.d_model

    @property
    def embed_width(self) -> int:
        return self.d_model

    @property
    def positions(self) -> int | None:
        return None  # relative positions have no last one

    @property
    def size(self) -> TextSize:
        width, heads = self.d_model, self.num_heads * self.d_kv
        layers = self.num_decoder_layers or self.num_layers
        forward = (3 if self.gated else 2) * width * self.d_ff
        weights = self.num_layers * (4 * width * heads + forward)
        weights += layers * (8 * width * heads + forward) + 2 * self.vocab_size * width
        # A decoder keeps keys and values of what it wrote and of what the encoder read.
        return TextSize(width, self.d_ff, 4 * layers * heads, self.vocab_size, weights)

    @property
    def gated(self) -> bool:
        """Whether a second projection is multiplied with the first."""
        if self.is_gated_act is not None:
            return self.is_gated_act
        return self.feed_forward_proj.startswith("gated-")

    @property
    def activation(self) -> str:
        """The activation of the feed-forward layers."""
        if self.dense_act_fn is not None:
            return self.dense_act_fn
        plain = self.feed_forward_proj.removeprefix("gated-")
        return "gelu_new" if self.feed_forward_proj == "gated-gelu" else plain

    @property
    def scales_output(self) -> bool:
        """Whether hidden states are scaled before the output matrix."""
        if self.scale_decoder_outputs is not None:
            return self.scale_decoder_outputs
        return self.tie_word_embeddings is not False
