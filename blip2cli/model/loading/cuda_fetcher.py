"""Matrices of streamed layers on their way to a GPU, beside the computation of the layer before."""

from __future__ import annotations

import itertools
from typing import Any

import torch
from torch import Tensor

from blip2cli.model.layers.linear import Linear
from blip2cli.model.vision.upload import Upload


class CudaFetcher:
    """Copies matrices from pinned memory, or through a pinned buffer from a mapped file."""

    def __init__(self, device: torch.device) -> None:
        # One buffer is filled while the other is copied from.
        pair = (Upload(device), Upload(device))
        self._uploads = itertools.cycle(pair)
        self._wait = pair[0].wait

    def start(self, layer: Linear) -> Any:
        return [next(self._uploads).start(load()) for load in layer.stored]

    def finish(self, started: Any) -> Tensor:
        pieces = [self._wait(*each) for each in started]
        return pieces[0] if len(pieces) == 1 else torch.cat(pieces)
