"""Weights in int8: what the option ``quantize`` of ``convert`` stores, and reading it.

A linear layer's weight is whole numbers of -127 to 127 and one float32 scale for each output row
(symmetric, by the largest magnitude of the row). Files are half the size of bfloat16. A model run
in int8 multiplies the numbers themselves (see ``int8_layers``); any other run dequantizes them.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

METHOD = "blip2cli-int8"  # quantization_config.quant_method in config.json
# transformers only warns of weights it does not know and goes on with random ones, but it fails
# where it finds no file, so the files have a name of their own.
STEM = "model.int8"
NUMBERS, SCALES = "weight_int8", "weight_scale"  # in place of a layer's "weight"
# Where nearly all weights are. The Q-Former and the projections are small and lose most by
# rounding; embeddings are looked up, and the head scores the vocabulary, in full precision.
_QUANTIZED = ("vision_model.encoder.", "language_model.")
_HEAD = "language_model.lm_head"

_CACHED_NUMBERS = 1 << 18  # rounded together, so that copies stay in the processor's cache


def is_quantized_layer(layer: str) -> bool:
    """Whether the linear layer of this name is quantized."""
    return layer.startswith(_QUANTIZED) and layer != _HEAD


def quantize(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight [O, I] to int8 [O, I] and float32 scales [O, 1]."""
    numbers = torch.empty(weight.shape, dtype=torch.int8)
    scales = torch.empty(len(weight), 1)
    step = max(1, _CACHED_NUMBERS // weight.shape[1])
    for start in range(0, len(weight), step):
        rows = slice(start, start + step)
        exact = weight[rows].to(torch.float32, copy=True)
        largest = torch.maximum(exact.amax(dim=1, keepdim=True), -exact.amin(dim=1, keepdim=True))
        torch.div(largest, 127, out=scales[rows])
        # A row of zeros has no scale to divide by; any will do.
        exact.div_(scales[rows].where(largest > 0, torch.ones_like(largest)))
        numbers[rows] = exact.round_()
    return numbers, scales


def dequantize(numbers: Tensor, scales: Tensor, dtype: torch.dtype) -> Tensor:
    """The weight [O, I] that ``numbers`` and ``scales`` stand for."""
    return numbers.float().mul_(scales).to(dtype)


@dataclass(frozen=True, eq=False)
class QuantizedWeight:
    """A weight in int8."""

    numbers: Tensor  # int8 [O, I]
    scales: Tensor  # float32 [O, 1]

    @property
    def shape(self) -> torch.Size:
        """Shape of the weight, [O, I]."""
        return self.numbers.shape

    def dequantized(self, dtype: torch.dtype) -> Tensor:
        """The weight [O, I] that it stands for."""
        return dequantize(self.numbers, self.scales, dtype)
