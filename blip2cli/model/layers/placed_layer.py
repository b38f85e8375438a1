"""Layers that may lie on another device than the layers in front of them."""

from __future__ import annotations

import torch
from torch import Tensor, nn


class PlacedLayer(nn.Module):
    """A layer that knows where it runs, where layers are placed one by one."""

    device: torch.device | None = None  # None: where the whole model is

    def receive(self, *tensors: Tensor) -> tuple[Tensor, ...]:
        """The same tensors on the layer's device."""
        if self.device is None:
            return tensors
        return tuple(tensor.to(self.device, non_blocking=True) for tensor in tensors)
