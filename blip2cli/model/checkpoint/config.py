"""``config.json`` as dataclasses: transformers' ``Blip2Config`` (``configuration_blip_2.py``) and
``InstructBlipConfig`` (``configuration_instructblip.py``)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.model_types import BLIP_2, MODEL_TYPES, ModelType
from blip2cli.model.families import OPT, Family, language_family
from blip2cli.model.families.base import TextConfig
from blip2cli.model.families.config_section import ConfigSection, check_id


@dataclass(frozen=True)
class VisionConfig(ConfigSection):
    """The image encoder."""

    hidden_size: int = 1408
    intermediate_size: int = 6144
    num_hidden_layers: int = 39
    num_attention_heads: int = 16
    image_size: Any = 224  # one side of a square, or height and width (see ``sides``)
    patch_size: int = 14
    hidden_act: str = "gelu"
    layer_norm_eps: float = 1e-6
    qkv_bias: bool = True
    # Before the first layer, as in CLIP: of two models of LAVIS, and unknown to transformers.
    pre_layernorm: bool = False


def sides(config: VisionConfig) -> tuple[int, int]:
    """Height and width of an image in pixels. Raises ModelError for other values."""
    size = config.image_size
    found = (size, size) if type(size) is int else tuple(size) if isinstance(size, list) else ()
    if len(found) != 2 or not all(type(side) is int and side > 0 for side in found):
        raise ModelError(
            None,
            f"config.json says image_size: {size!r}, where pixels belong",
            "take config.json from the model that the weights are from",
        )
    return found[0], found[1]


def patches(config: VisionConfig) -> int:
    """Sequence length of an image in its encoder, P+1: its patches and the class token."""
    height, width = sides(config)
    return int((height // config.patch_size) * (width // config.patch_size)) + 1


@dataclass(frozen=True)
class QFormerConfig(ConfigSection):
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
class _Sizes(ConfigSection):
    """What is said of the whole model."""

    num_query_tokens: int = 32
    image_text_hidden_size: int = 256


@dataclass(frozen=True)
class Blip2Config:
    """The whole model."""

    family: Family
    vision_config: VisionConfig
    qformer_config: QFormerConfig
    text_config: TextConfig
    num_query_tokens: int
    image_text_hidden_size: int
    image_token_index: int | None
    model_type: ModelType = BLIP_2

    @property
    def instructed(self) -> bool:
        """Whether the Q-Former reads the prompt beside the image."""
        return self.model_type.instructed


def read_config(values: Mapping[str, Any], family: Family | None = None) -> Blip2Config:
    """From the object in ``config.json``; the family by the language model where none is given.

    Raises ModelError for what cannot be one.
    """
    values = {name: value for name, value in values.items() if value is not None}
    kind = MODEL_TYPES.get(str(values.get("model_type")), BLIP_2)
    # The file does not say it: there is no other InstructBLIP.
    reads = {"use_qformer_text_input": True} if kind.instructed else {}
    vision = VisionConfig.read(values.get("vision_config") or {})
    qformer = QFormerConfig.read(
        values.get("qformer_config") or {}, encoder_hidden_size=vision.hidden_size, **reads
    )
    text = values.get("text_config") or {}
    family = family or language_family(text) or OPT
    image_token = values.get("image_token_index", values.get("image_token_id"))
    check_id("image_token_index", image_token)
    return Blip2Config(
        family=family,
        vision_config=vision,
        qformer_config=qformer,
        text_config=family.config_class.read(text),
        **vars(_Sizes.read(values)),
        image_token_index=image_token,
        model_type=kind,
    )
