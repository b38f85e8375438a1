"""Projections of the same states, such as query, key and value, fused into one linear layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from blip2cli.model.layers.linear import Linear


class FusableProjections(nn.Module):
    """A module some of whose linear layers can be fused."""

    FUSABLE: ClassVar[tuple[tuple[str, ...], ...]] = ()  # names of layers with the same input

    def project(self, states: Tensor, *names: str) -> Sequence[Tensor]:
        """The outputs of the layers ``names`` (one entry of ``FUSABLE``) for ``states``."""
        fused = self._modules.get("_".join(names))
        if fused is None:
            return [self._modules[name](states) for name in names]  # type: ignore[misc]
        output: Tensor = fused(states)
        return output.chunk(len(names), dim=-1)

    def project_together(self, states: Tensor, *names: str) -> Tensor:
        """The same outputs, of one size, side by side: [..., layers, out_features]."""
        fused = self._modules.get("_".join(names))
        if fused is None:
            return torch.stack(self.project(states, *names), dim=-2)  # type: ignore[arg-type]
        output: Tensor = fused(states).unflatten(-1, (len(names), -1))
        return output

    def fuse(self) -> None:
        """Put one layer in the place of each entry of ``FUSABLE``."""
        for names in self.FUSABLE:
            if names[0] in self._modules:
                layers: list[Any] = [self._modules.pop(name) for name in names]
                self.add_module("_".join(names), _fused(layers))


def _fused(layers: Sequence[Linear]) -> Linear:
    first = layers[0]
    with torch.device("meta"):
        whole = Linear(first.in_features, sum(layer.out_features for layer in layers), False)
    weights: list[Tensor] = [layer.weight for layer in layers]
    whole.weight = nn.Parameter(torch.cat(weights), False)
    scales = [layer.scales for layer in layers if layer.scales is not None]
    whole.scales = torch.cat(scales) if scales else None
    whole.stored = tuple(load for layer in layers for load in layer.stored)
    biases = [layer.bias for layer in layers]
    if any(bias is not None for bias in biases):
        zeros = next(bias for bias in biases if bias is not None).new_zeros
        filled: list[Tensor] = [
            zeros(layer.out_features) if bias is None else bias
            for layer, bias in zip(layers, biases, strict=True)
        ]
        whole.bias = nn.Parameter(torch.cat(filled), False)
    return whole


def fuse_projections(model: nn.Module) -> None:
    """Fuse the projections of every ``FusableProjections`` inside ``model``."""
    for module in list(model.modules()):
        if isinstance(module, FusableProjections):
            module.fuse()
