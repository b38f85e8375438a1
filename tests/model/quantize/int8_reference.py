"""The int8 product computed with whole numbers, for comparison."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from blip2cli.model.layers.linear import Linear
from blip2cli.model.quantize.int8_layers import (
    Int8Linear,
    quantize_rows,
)
from blip2cli.model.quantize.int8_weights import quantize


def with_int8_weight(layer: Linear, dtype: torch.dtype = torch.float32) -> Linear:
    """``layer`` as it is loaded: an int8 weight and its scales."""
    numbers, scales = quantize(layer.weight)
    layer.weight = nn.Parameter(numbers, requires_grad=False)
    layer.scales = scales
    if layer.bias is not None:
        layer.bias.data = layer.bias.to(dtype)
    return layer


def quantized(layer: Linear, dtype: torch.dtype = torch.float32) -> Int8Linear:
    return Int8Linear(with_int8_weight(layer, dtype))


def exact_product(plain: Linear, rows: Tensor, zero_point: int) -> Tensor:
    """What the layer is to compute, in float64, before its activation."""
    numbers, scales = quantize(plain.weight)
    states, factors = quantize_rows(rows, zero_point)
    products = (states.double() - zero_point) @ numbers.double().T * scales.T.double()
    return products * factors.double() + plain.bias.double()
