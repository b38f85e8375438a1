"""Tokens on their way back from a device."""

from __future__ import annotations

import torch

from blip2cli.model.decoding.async_copy import AsyncCopy, to_device


def test_what_was_read_back_is_told_in_order() -> None:
    tokens, said = torch.tensor([4, 5]), torch.tensor([-0.5, -1.25])
    assert AsyncCopy(tokens, said).values() == [[4, 5], [-0.5, -1.25]]


def test_numbers_become_tensors_as_they_are() -> None:
    sent = to_device([(1, 2), (3, 4)], torch.device("cpu"))
    assert sent.dtype is torch.int64
    assert sent.tolist() == [[1, 2], [3, 4]]
    assert to_device([0.5], torch.device("cpu")).dtype is torch.float32
