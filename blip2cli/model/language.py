"""Texts without an image, as the language model alone reads them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch import Tensor

from blip2cli.model.checkpoint import Family

if TYPE_CHECKING:
    from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration


def read_texts(model: Blip2ForConditionalGeneration, family: Family, ids: Tensor) -> Tensor:
    """The last hidden state of texts alone, [N, T] to [N, T, Dl]; T5: its encoder's.

    ``get_text_features`` of transformers' ``Blip2Model``.
    """
    language: Any = model.language_model
    reader = language.get_encoder() if family == "t5" else language.base_model
    # Of few positions (3 to 11, measured with torch 2.13), plain matrix products give a row other
    # bits in other company; what decoding takes them for, a single query, does not come up here.
    before = reader.config._attn_implementation
    reader.config._attn_implementation = "sdpa"
    try:
        states: Tensor = reader(input_ids=ids, use_cache=False).last_hidden_state
    finally:
        reader.config._attn_implementation = before
    return states
