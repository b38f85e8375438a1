"""Linear layers with weights, as a checkpoint would fill them."""

from __future__ import annotations

import torch
from torch import nn

from blip2cli.model.layers.linear import Linear


def filled(inside: int, outside: int, activation: str = "", bias: bool = True) -> Linear:
    torch.manual_seed(inside)
    layer = Linear(inside, outside, bias, activation).requires_grad_(False)
    nn.init.normal_(layer.weight, 0, inside**-0.5)
    if bias:
        nn.init.normal_(layer.bias)
    return layer
