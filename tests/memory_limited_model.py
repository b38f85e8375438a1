"""A model that runs out of memory above a given batch size."""

from __future__ import annotations

from typing import Any

import torch

from blip2cli.model.wrapper import Blip2


class MemoryLimitedModel:
    """The model, except that the allocator is asked for far too much when a batch is large."""

    def __init__(self, model: Blip2, capacity: int) -> None:
        self._model = model
        self._capacity = capacity  # images that fit at once
        self.tried: list[int] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def features(self, pixels: torch.Tensor) -> Any:
        self.tried.append(len(pixels))
        if len(pixels) > self._capacity:
            torch.empty(1 << 60, dtype=torch.uint8)
        return self._model.features(pixels)
