"""The int8 product computed with whole numbers, for comparison."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blip2cli.model.layers.linear import Linear
from blip2cli.model.quantize.int8 import quantize
from blip2cli.model.quantize.linear_int8 import (
    Int8Linear,
    quantize_rows,
)


def quantized(layer: Linear, dtype: torch.dtype = torch.float32, zero: int = 128) -> Linear:
    numbers, scales = quantize(layer.weight)
    layer.weight = nn.Parameter(numbers, requires_grad=False)
    layer.scales = scales
    if layer.bias is not None:
        layer.bias.data = layer.bias.to(dtype)
    Int8Linear.take(layer, zero)
    return layer


def exact_product(plain: Linear, rows: Tensor, zero: int) -> Tensor:
    """What the layer is to compute, in float64, before its activation."""
    numbers, scales = quantize(plain.weight)
    states, factors = quantize_rows(rows, zero)
    products = (states.double() - zero) @ numbers.double().T * scales.T.double()
    return products * factors.double() + plain.bias.double()
