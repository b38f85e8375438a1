"""Texts without an image, as the language model alone reads them."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from blip2cli.model.checkpoint.directory import Family
from blip2cli.model.families.opt.layer import finish, project


def read_texts(model: Any, family: Family, ids: Tensor) -> Tensor:
    """The last hidden state of texts alone, [N, T] to [N, T, Dl]; T5: its encoder's.

    ``get_text_features`` of transformers' ``Blip2Model``.
    """
    language = model.language_model
    if family == "t5":
        read: Tensor = language.encoder(language.shared(ids))
        return read
    decoder = language.model.decoder
    hidden = decoder.place(decoder.embed_tokens(ids), torch.arange(ids.shape[1], device=ids.device))
    for layer in decoder.layers:
        # Plain matrix products of few positions would give a row other bits in other company.
        attended = scaled_dot_product_attention(*project(layer, hidden), is_causal=True, scale=1.0)
        hidden = finish(layer, hidden, attended.transpose(1, 2).flatten(2))
    states: Tensor = decoder.leave(hidden)
    return states
