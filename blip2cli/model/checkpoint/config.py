"""``config.json`` as dataclasses: what a BLIP-2 model is made of.

Names and defaults are those of transformers' ``Blip2Config``, ``OPTConfig`` and ``T5Config``
(``configuration_blip_2.py``, ``configuration_opt.py``, ``configuration_t5.py``): published files
say only what differs from them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields
from typing import Any, TypeVar

from blip2cli.errors import ModelError

Config = TypeVar("Config", bound="_Part")


@dataclass(frozen=True)
class _Part:
    """A part of ``config.json``; what it does not know is of no matter to running the model."""

    @classmethod
    def read(cls: type[Config], values: Mapping[str, Any], **given: Any) -> Config:
        """From a JSON object; ``given`` wins. Raises ModelError for a value of another type."""
        known = {field.name: field for field in fields(cls)}
        found = {name: value for name, value in values.items() if name in known} | given
        for name, value in found.items():
            default = known[name].default
            kind = type(default)
            if default is MISSING or default is None or value is None or isinstance(value, kind):
                continue
            if kind is float and type(value) is int:
                continue
            raise ModelError(
                f"config.json says {name}: {value!r}, where a value like {default!r} belongs; "
                "take config.json from the model that the weights are from."
            )
        return cls(**found)


@dataclass(frozen=True)
class VisionConfig(_Part):
    """The image encoder."""

    hidden_size: int = 1408
    intermediate_size: int = 6144
    num_hidden_layers: int = 39
    num_attention_heads: int = 16
    image_size: Any = 224  # one side of a square, or height and width
    patch_size: int = 14
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True


def patches(config: VisionConfig) -> int:
    """Positions of an image in its encoder, P+1: its patches, and the class token."""
    size = config.image_size
    height, width = (size, size) if isinstance(size, int) else size
    return int((height // config.patch_size) * (width // config.patch_size)) + 1


@dataclass(frozen=True)
class QFormerConfig(_Part):
    """The querying transformer."""

    vocab_size: int = 30522
    hidden_size: int = 768
    num_hidden_layers: int = 12
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    hidden_act: str = "gelu"
    max_position_embeddings: int = 512
    layer_norm_eps: float = 1e-12
    pad_token_id: int | None = 0
    cross_attention_frequency: int = 2
    encoder_hidden_size: int = 1408
    use_qformer_text_input: bool = False


@dataclass(frozen=True)
class OptConfig(_Part):
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
    eos_token_id: Any = 2  # one id or several
    enable_bias: bool = True
    layer_norm_elementwise_affine: bool = True

    @property
    def embed_width(self) -> int:
        """Width of the word embeddings, which also write."""
        return self.word_embed_proj_dim or self.hidden_size


@dataclass(frozen=True)
class T5Config(_Part):
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
    def hidden_size(self) -> int:
        """Width of the layers."""
        return self.d_model

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


TextConfig = OptConfig | T5Config
TEXT_CONFIGS: dict[str, type[OptConfig] | type[T5Config]] = {"opt": OptConfig, "t5": T5Config}


@dataclass(frozen=True)
class Blip2Config:
    """The whole model."""

    vision_config: VisionConfig
    qformer_config: QFormerConfig
    text_config: TextConfig
    num_query_tokens: int
    image_text_hidden_size: int
    image_token_index: int | None


def read_config(values: Mapping[str, Any]) -> Blip2Config:
    """From the object in ``config.json``. Raises ModelError for what cannot be one."""
    vision = VisionConfig.read(values.get("vision_config") or {})
    qformer = QFormerConfig.read(
        values.get("qformer_config") or {}, encoder_hidden_size=vision.hidden_size
    )
    text = values.get("text_config") or {}
    kind = TEXT_CONFIGS.get(text.get("model_type", "opt"), OptConfig)
    return Blip2Config(
        vision_config=vision,
        qformer_config=qformer,
        text_config=kind.read(text),
        num_query_tokens=values.get("num_query_tokens", 32),
        image_text_hidden_size=values.get("image_text_hidden_size", 256),
        image_token_index=values.get("image_token_index", values.get("image_token_id")),
    )
