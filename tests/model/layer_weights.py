"""Linear layers with random weights, plain and packed."""

from __future__ import annotations

import torch
from torch import nn

from blip2cli.model.layers.linear import Linear
from blip2cli.model.layers.packed_linear import PackedLinear, pack_weights

SHAPES = [(32, 128), (100, 333), (128, 384), (512, 128), (1408, 640), (2048, 512)]


def filled(inside: int, outside: int, activation: str = "", bias: bool = True) -> Linear:
    torch.manual_seed(inside)
    layer = Linear(inside, outside, bias, activation).requires_grad_(False)
    nn.init.normal_(layer.weight, 0, inside**-0.5)
    if bias:
        nn.init.normal_(layer.bias)
    return layer


def packed(layer: Linear, dtype: torch.dtype = torch.float32) -> PackedLinear:
    model = nn.Sequential(layer.to(dtype))
    pack_weights(model)
    assert isinstance(model[0], PackedLinear)
    return model[0]
