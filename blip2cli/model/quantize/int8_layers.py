"""Linear layers that multiply int8 weights by uint8 states, on a CPU.

A weight is whole numbers of -127 to 127 with a scale for each output row (see ``int8_weights``).
States are quantized as they come, each row (token) by its own scale: no row depends on another, and
sums of whole numbers are exact in any order, so a row keeps its bits whatever the batch and the
number of threads. This is the vector-wise scheme of LLM.int8() (arXiv 2208.07339, section 3)
without its second product for outliers, whose columns are chosen by the whole batch. Measured on
AVX512-VNNI, quantization included: 1.6 to 1.9 times the speed of packed bfloat16 on the layers of
published models, and 3 to 3.7 times that of float32.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

import torch
from torch import Tensor, nn

from blip2cli.model.layers.linear import (
    ACTIVATIONS,
    Linear,
    ReplacementLinear,
    replace_linear_layers,
)

# Numbers quantized between two products: fewer, and threads wait for one another more often; more,
# and the float32 copies leave the processor's cache. Measured with 2^17 to 2^22: best from 2^20 on.
_CHUNK = 1 << 22
# Rows of a product come in blocks: 514 rows take as long as 536. Measured on AVX512-VNNI.
_ROW_BLOCK = 64
_CACHED_NUMBERS = 1 << 19  # quantized together: 2 MB of intermediates, in the caches of two cores
# The share of the range that the largest number takes: what is left is for the scale's own rounding
# (bfloat16 has eight bits), so that no number leaves the range.
_LARGEST = 0.996
_SMALLEST_SCALE = 1e-12  # a row of zeros has none
# From 2^23 to 2^24 float32 has whole numbers alone; of this one the last byte is 0.
_WHOLE = 1.5 * 2**23
# Zero point of 256 levels. After these activations nothing, or little, is below zero: GELU's
# least value is -0.17.
_ZERO_POINT = 128
_ZERO_POINTS = {"relu": 0, "gelu": 32, "gelu_new": 32, "gelu_pytorch_tanh": 32}
# Activations that are computed in place; what others give is copied.
_IN_PLACE: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": torch.ops.aten.gelu_.default,
    "relu": torch.relu_,
}
# Layers that read another's activation, by their names in one module.
_FEED_FORWARD = (("fc1", "fc2"), ("wi", "wo"))


class Int8Linear(ReplacementLinear):
    """``Linear`` with weight and states in eight bits; ``layer`` has an int8 weight and scales."""

    def __init__(self, layer: Linear, zero_point: int = _ZERO_POINT) -> None:
        super().__init__(layer)
        assert layer.scales is not None
        self.packed = _pack(layer.weight.detach())  # int8 [O, I] in oneDNN's layout
        self.weight_scales = layer.scales.flatten()  # float32 [O]
        # int32 [O], all zero: weights are symmetric.
        self.weight_zero_points = torch.zeros(layer.out_features, dtype=torch.int32)
        self.zero_point = zero_point if max_exact_level() == 255 else zero_point // 2  # of states

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:  # noqa: A002 - nn's
        """[..., in_features] to [..., out_features], ``residual`` of that shape added."""
        states = input.reshape(-1, self.in_features)
        added = None if residual is None else residual.reshape(-1, self.out_features)
        output = states.new_empty(len(states), self.out_features)
        most = _CHUNK // max(self.in_features, self.out_features)
        for rows in _chunks(len(states), most, _ROW_BLOCK):
            numbers, scales = quantize_rows(states[rows], self.zero_point)
            products = _product(
                numbers,
                self.zero_point,
                self.packed,
                self.weight_scales,
                self.weight_zero_points,
                states.dtype,
            )
            self._finish(products, scales, output[rows])
            if added is not None:
                output[rows].add_(added[rows])
        return output.view(*input.shape[:-1], self.out_features)

    def _finish(self, products: Tensor, scales: Tensor, output: Tensor) -> None:
        """Apply the rows' scales, which the product does not take, and so bias and activation."""
        bias = self._parameters["bias"]
        if bias is None:
            torch.mul(products, scales, out=output)
        else:
            torch.addcmul(bias, products, scales, out=output)
        if self.activation in _IN_PLACE:
            _IN_PLACE[self.activation](output)
        elif self.activation:
            output.copy_(ACTIVATIONS[self.activation](output))


def quantize_rows(states: Tensor, zero_point: int) -> tuple[Tensor, Tensor]:
    """Quantize states [N, I] row by row: uint8 [N, I] and the rows' scales [N, 1] in the states'
    own precision."""
    numbers = torch.empty(states.shape, dtype=torch.uint8)
    scales = states.new_empty(len(states), 1)
    for rows in _chunks(len(states), _CACHED_NUMBERS // states.shape[1]):
        _quantize(states[rows], zero_point, numbers[rows], scales[rows])
    return numbers, scales


def _quantize(states: Tensor, zero_point: int, numbers: Tensor, scales: Tensor) -> None:
    """The same into ``numbers`` and ``scales``."""
    exact = states.float()
    least = exact.amax(dim=1, keepdim=True).mul_(1 / (_LARGEST * (max_exact_level() - zero_point)))
    if zero_point:
        below = exact.amin(dim=1, keepdim=True).mul_(-1 / (_LARGEST * zero_point))
        least = torch.maximum(least, below)
    scales.copy_(least.clamp_(min=_SMALLEST_SCALE))
    # Rounded to what is stored: the division is by the scale that the product is multiplied by.
    factors = scales.float().reciprocal()
    whole = exact * factors if exact is states else exact.mul_(factors)
    # The sum with so large a number is rounded to a whole one, whose last byte is the result.
    numbers.copy_(whole.add_(_WHOLE + zero_point).view(torch.int32))


@cache
def max_exact_level() -> int:
    """The largest uint8 level that is multiplied exactly here: 255, 127, or 0 for none.

    Without VNNI instructions oneDNN adds two products in 16 bits, where those of larger numbers
    overflow silently.
    """
    scales, zero_points = torch.ones(64), torch.zeros(64, dtype=torch.int32)
    for most in (255, 127):
        numbers = torch.full((64, 256), most, dtype=torch.uint8)
        try:
            packed = _pack(torch.full((64, 256), 127, dtype=torch.int8))
            product = _product(numbers, 0, packed, scales, zero_points, torch.float32)
        except (AttributeError, RuntimeError):
            return 0  # a torch without oneDNN, or a processor it has no such product for
        if bool((product == most * 127 * 256).all()):
            return most
    return 0


def int8_is_faster(layer: str, dtype: torch.dtype) -> bool:
    """Whether a layer of this name is faster in int8 than in ``dtype``.

    On AMX bfloat16 is so fast that quantizing the many rows of images takes more than is saved:
    ViT-g took 5.7 s for 16 images in place of 4.4. A language model is read from memory for every
    decode step, and int8 is half of it.
    """
    on_amx = dtype is torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    return not (on_amx and layer.startswith("vision_model."))


def _pack(numbers: Tensor) -> Tensor:
    packed: Tensor = torch.ops.onednn.qlinear_prepack(numbers, None)
    return packed


def _product(
    numbers: Tensor,
    zero_point: int,
    packed: Tensor,
    scales: Tensor,
    zero_points: Tensor,
    dtype: torch.dtype,
) -> Tensor:
    """Rows uint8 [N, I] less ``zero_point`` times the weight, its scales applied: ``dtype``
    [N, O]."""
    product: Tensor = torch.ops.onednn.qlinear_pointwise(
        numbers, 1.0, zero_point, packed, scales, zero_points, None, 1.0, 0, dtype, "none", [], ""
    )
    return product


def zero_points(model: nn.Module) -> dict[str, int]:
    """By the names of linear layers that read an activation: the zero point of their states."""
    found: dict[str, int] = {}
    for path, module in model.named_modules():
        for first, second in _FEED_FORWARD:
            before, after = module._modules.get(first), module._modules.get(second)
            if isinstance(before, Linear) and isinstance(after, Linear):
                name = f"{path}.{second}" if path else second
                found[name] = _ZERO_POINTS.get(before.activation, _ZERO_POINT)
    return found


def use_int8_layers(model: nn.Module) -> None:
    """Replace the linear layers inside ``model`` that have int8 weights by ``Int8Linear``."""
    points = zero_points(model)

    def replacement(name: str, layer: Linear) -> Int8Linear | None:
        if layer.scales is None:
            return None
        return Int8Linear(layer, points.get(name, _ZERO_POINT))

    replace_linear_layers(model, replacement)


def _chunks(rows: int, most: int, multiple: int = 1) -> list[slice]:
    """``rows`` in as few chunks of about ``most`` as possible, all about equal; all but the last
    have a ``multiple`` of rows."""
    chunks = -(-rows // max(most, 1)) or 1
    step = -(-rows // chunks) or 1
    step += -step % multiple
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
