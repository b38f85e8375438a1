"""Linear layers in eight bits on CUDA, by torch's own products: ``_int_mm`` and ``_scaled_mm``.

A weight has a scale for each output row, as in ``int8_weights``; states have one for each row
(token), found as they come, on the device. Nothing waits for the device and every shape is known,
so a decode step of such layers is captured as a CUDA graph like any other.

**int8.** A decode step, with one position a sequence, reads all weights for a few rows: there whole
numbers are multiplied, and half as many bytes are read. Over the many positions of images and
prompts the weight is dequantized for one product in the model's precision, which costs little
beside it and rounds no states. ``_int_mm`` gains nothing there: writing its int32 results and
scaling them takes about as long as the product, which itself is not always quicker than bfloat16's
(a published measurement, RTX 4090, rows x 2048 x 6144, scaled: 15.6 us against 15.3 with 64 rows,
1,029 against 605 with 4,096).

**fp8.** e4m3 (arXiv 2209.05433) for weights and states of all products, scales and bias in the
same kernel: twice bfloat16's peak on Ada, Hopper and later, and less exact than int8.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional

from blip2cli.model.layers.linear import (
    ACTIVATIONS,
    Linear,
    ReplacementLinear,
    replace_linear_layers,
)
from blip2cli.model.quantize.int8_layers import zero_points
from blip2cli.options import Quantize
from blip2cli.system.memory import is_exhaustion

# What torch demands of sizes on CUDA (aten/src/ATen/native/cuda/Blas.cpp and ScaledBlas.cpp):
# ``_int_mm`` more than 16 rows, and multiples of 8; ``_scaled_mm`` multiples of 16.
_LEAST_ROWS = 32
_MULTIPLE = 16
FP8 = torch.float8_e4m3fn
_LARGEST_FP8 = 448.0
_SMALLEST = 1e-12  # of the largest number in a row, by which others are divided
# From 2^23 to 2^24 float32 has whole numbers alone; the last byte of this one is 0.
_WHOLE = 1.5 * 2**23


class CudaLinear(ReplacementLinear):
    """``Linear`` whose weight has eight bits, with a float32 scale for each output."""

    def __init__(self, layer: Linear) -> None:
        super().__init__(layer)
        assert layer.scales is not None
        self.numbers = layer.weight.detach()  # int8 or e4m3 [O, I]
        self.weight_scales = layer.scales.view(1, -1)  # float32 [1, O]

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:  # noqa: A002 - nn's
        """[..., in_features] to [..., out_features], ``residual`` of that shape added."""
        output = self.product(input).view(*input.shape[:-1], self.out_features)
        if self.activation:
            output = ACTIVATIONS[self.activation](output)
        return output if residual is None else output + residual

    def product(self, states: Tensor) -> Tensor:
        """[..., in_features] times the weight, bias added."""
        raise NotImplementedError


class CudaInt8Linear(CudaLinear):
    """In a decode step a product of whole numbers, else one by the dequantized weight."""

    def __init__(self, layer: Linear, one_sided: bool = False) -> None:
        """``one_sided``: no state is below zero, so that all 256 levels lie above."""
        super().__init__(layer)
        self.levels = 255 if one_sided else 127  # of the largest state
        self.rounds_always = False  # states of many positions as well
        # What the products' scales leave out is that of the rows.
        self._scales = self.weight_scales / self.levels
        # A row's numbers begin at -128 where no state is below zero, which adds this to each sum.
        sums = self.numbers.sum(dim=1, dtype=torch.float32)
        self._offsets = 128 * sums * self._scales[0] if one_sided else None
        self._whole = self._scales.new_full((), _WHOLE - 128 if one_sided else _WHOLE)

    def product(self, states: Tensor) -> Tensor:
        """[..., in_features] times the weight, bias added."""
        if states.dim() > 2 and states.shape[-2] > 1 and not self.rounds_always:
            weight = states.new_empty(self.numbers.shape)
            torch.mul(self.numbers, self.weight_scales.view(-1, 1), out=weight)
            return functional.linear(states, weight, self.bias)
        return self._whole_product(states.reshape(-1, self.in_features).contiguous())

    def _whole_product(self, states: Tensor) -> Tensor:
        numbers, largest = self.round_rows(states)
        short = _LEAST_ROWS - len(numbers)
        if short > 0:
            numbers = functional.pad(numbers, (0, 0, 0, short))
        sums = torch._int_mm(numbers, self.numbers.t())[: len(states)]
        if self._offsets is None:
            scaled = sums * self._scales
        else:
            scaled = torch.addcmul(self._offsets, sums, self._scales)
        output = states.new_empty(scaled.shape)
        bias = self._parameters["bias"]
        if bias is None:
            return torch.mul(scaled, largest, out=output)
        return torch.addcmul(bias, scaled, largest, out=output)

    def round_rows(self, states: Tensor) -> tuple[Tensor, Tensor]:
        """Numbers int8 [N, I] of states [N, I], and the largest magnitude of each row, float32
        [N, 1]: a number is that of ``levels`` steps, less 128 if states are one-sided."""
        largest = torch.linalg.vector_norm(
            states, math.inf, dim=1, keepdim=True, dtype=torch.float32
        )
        # The sum with so large a number is rounded to a whole one, whose last byte is the result.
        # A row of zeros is divided by zero: its numbers mean nothing, and are multiplied by zero.
        factors = largest.reciprocal()
        whole = torch.addcmul(self._whole, states, factors, value=self.levels)
        return whole.view(torch.int32).to(torch.int8), largest


class CudaFp8Linear(CudaLinear):
    """Products of e4m3 numbers, scaled within the kernel; states are bfloat16."""

    def product(self, states: Tensor) -> Tensor:
        """[..., in_features] times the weight, bias added."""
        rows = states.reshape(-1, self.in_features).contiguous()
        scales = torch.linalg.vector_norm(rows, math.inf, dim=1, keepdim=True, dtype=torch.float32)
        scales.clamp_(min=_SMALLEST).div_(_LARGEST_FP8)
        numbers = torch.div(rows, scales, out=torch.empty_like(rows, dtype=FP8))
        return _multiply_fp8(
            numbers, self.numbers, scales, self.weight_scales, self.bias, rows.dtype
        )


def round_to_fp8(weight: Tensor) -> tuple[Tensor, Tensor]:
    """Round a weight [O, I] to e4m3 [O, I] and float32 scales [O, 1]."""
    exact = weight.float()
    scales = exact.abs().amax(dim=1, keepdim=True).clamp_(min=_SMALLEST).div_(_LARGEST_FP8)
    return (exact / scales).to(FP8), scales


def has_sizes(shape: Sequence[int]) -> bool:
    """Whether there are such products by a weight of this shape."""
    return all(size % _MULTIPLE == 0 for size in shape)


def multiplies_exactly(quantize: Quantize, device: torch.device) -> bool:
    """Whether the products of ``quantize``, int8 or fp8, are there on ``device`` and exact.

    Tried, as the device's name does not tell: Volta has no int8 products and Turing no FP8, some
    torches no scales of rows for some devices, and AMD's numbers are others.
    """
    try:
        if quantize == "int8":
            numbers = torch.full((64, 64), 127, dtype=torch.int8, device=device)
            product, want = torch._int_mm(numbers, numbers.t()), 127 * 127 * 64
        else:
            ones = torch.ones(64, 64, dtype=torch.bfloat16, device=device)
            scales = torch.ones(64, 1, device=device)
            product = _multiply_fp8(
                ones.to(FP8), ones.to(FP8), scales, scales.t().contiguous(), ones[0], ones.dtype
            )
            want = 64 + 1
        return bool((product == want).all())
    except (RuntimeError, AssertionError) as error:  # torch asserts that it was built for CUDA
        return is_exhaustion(error)  # loading the weights says that


def use_cuda_layers(model: nn.Module, quantize: Quantize) -> None:
    """Replace the linear layers inside ``model`` that have weights in eight bits, on the device."""
    from_zero = {name for name, point in zero_points(model).items() if point == 0}

    def replacement(name: str, layer: Linear) -> CudaLinear | None:
        if layer.scales is None:
            return None
        if quantize == "fp8":
            return CudaFp8Linear(layer)
        return CudaInt8Linear(layer, one_sided=name in from_zero)

    replace_linear_layers(model, replacement)


def round_as_in_decode_steps(model: nn.Module) -> None:
    """Let the layers inside ``model`` round states over many positions as they do over one, so that
    a forward pass shows what decode steps do."""
    for layer in model.modules():
        if isinstance(layer, CudaInt8Linear):
            layer.rounds_always = True


def _multiply_fp8(
    rows: Tensor,
    weight: Tensor,
    row_scales: Tensor,
    weight_scales: Tensor,
    bias: Tensor | None,
    dtype: torch.dtype,
) -> Tensor:
    """Rows e4m3 [N, I] times the weight [O, I], scales [N, 1] and [1, O] applied: ``dtype``
    [N, O]."""
    return torch._scaled_mm(
        rows, weight.t(), row_scales, weight_scales, bias=bias, out_dtype=dtype, use_fast_accum=True
    )
