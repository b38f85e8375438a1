"""Texts without an image, as the language model reads them."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from blip2cli.model.families import LanguageFamily
from blip2cli.model.grouping import grouped
from blip2cli.model.layers.streamed import STREAMED_ROWS
from blip2cli.model.nets.blip2 import GenerationModel

_BATCH = 32  # texts that go through the language model together


def language_states(
    family: LanguageFamily, model: GenerationModel, ids: Sequence[tuple[int, ...]]
) -> list[Tensor]:
    """The last hidden state of each text of ``ids``, [T, Dl] float32; T5: its encoder's."""
    found: dict[int, Tensor] = {}
    together = _BATCH * (STREAMED_ROWS if model.stream else 1)
    for _, members in grouped(map(len, ids), together):
        rows = torch.tensor([ids[number] for number in members], device=model.device)
        states = family.text_states(model.language_model, rows).float()
        found.update(zip(members, states, strict=True))
    return [found[number] for number in range(len(ids))]
