"""Tokens on their way back from a device."""

from __future__ import annotations

import torch

from blip2cli.model.decoding.async_copy import AsyncCopy


def test_what_was_read_back_is_told_in_order() -> None:
    tokens, said = torch.tensor([4, 5]), torch.tensor([-0.5, -1.25])
    assert AsyncCopy(tokens, said).values() == [[4, 5], [-0.5, -1.25]]
