"""Checkpoints in eight bits, as ``blip2cli.model.quantize.int8_weights`` defines them."""

from __future__ import annotations

from collections.abc import Iterable

import torch
from torch import Tensor

from blip2cli.model.checkpoint.lazy_weights import Weight, Weights
from blip2cli.model.quantize.int8_weights import NUMBERS, SCALES, is_quantized_layer, quantize


def quantize_weights(weights: Weights, layers: Iterable[str]) -> Weights:
    """The weights, with those of the linear ``layers`` that are quantized in eight bits."""
    chosen = {f"{name}.weight" for name in layers if is_quantized_layer(name)}
    made: Weights = {}
    for name, weight in weights.items():
        if name in chosen:
            made |= _pair(name, weight)
        else:
            made[name] = weight
    return made


def _pair(name: str, weight: Weight) -> Weights:
    layer = name.removesuffix("weight")

    def part(number: int) -> Tensor:
        return quantize(weight.load())[number]

    return {
        f"{layer}{NUMBERS}": Weight(weight.shape, torch.int8, lambda: part(0)),
        f"{layer}{SCALES}": Weight((weight.shape[0], 1), torch.float32, lambda: part(1)),
    }
