"""Linear layers that multiply eight-bit numbers: ``--quantize int8`` on a CPU.

A weight is whole numbers of -127 to 127 with a scale for each output (see ``int8``). The states
that are multiplied by it are rounded as they come, each row (token) by its own scale: one of them
never depends on another, and sums of whole numbers are exact in any order, so that a row keeps its
bits whatever its company and the number of threads. This is the vector-wise scheme of LLM.int8()
(arXiv 2208.07339, section 3) without its second product for outliers, whose columns are chosen by
the whole batch. Measured on AVX512-VNNI, rounding included: 1.6 to 1.9 times the speed of packed
bfloat16 on the layers of published models, and 3 to 3.7 times that of float32.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor, nn

from blip2cli.model.layers.linear import ACTIVATIONS, Linear

# Numbers rounded at once: fewer, and threads wait for one another more often; more, and the copies
# in float32 leave the processor's cache. Measured with 2^17 to 2^22: quickest from 2^20 on.
_AT_ONCE = 1 << 22
_IN_CACHE = 1 << 19  # of these what lies between is done: 2 MB, in the caches of two cores
# The share of the range that the largest number takes: what is left is for the scale's own rounding
# (bfloat16 has eight bits), so that no number leaves the range.
_LARGEST = 0.996
_SMALLEST_SCALE = 1e-12  # a row of zeros has none
# From 2^23 to 2^24 float32 has whole numbers alone; of this one the last byte is 0.
_WHOLE = 1.5 * 2**23
# Which of 256 numbers stands for zero. After these activations there is nothing below zero, or
# little: GELU's least is -0.17.
_ZERO = 128
_ZEROS = {"relu": 0, "gelu": 32, "gelu_new": 32, "gelu_pytorch_tanh": 32}
# Layers that read what another's activation gives, by their names in one module.
_FED = (("fc1", "fc2"), ("wi", "wo"))


class Int8Linear(Linear):
    """The same as ``Linear`` with weight and states in eight bits."""

    packed: Tensor  # the numbers [O, I] in oneDNN's layout
    factors: Tensor  # float32 [O], its scales
    offsets: Tensor  # int32 [O], all zero: weights have no zero point
    zero: int = _ZERO  # of the states

    def forward(self, input: Tensor, added: Tensor | None = None) -> Tensor:  # noqa: A002 - its name
        """Map [..., in_features] to [..., out_features]; ``added`` is added to the result."""
        states = input.reshape(-1, self.in_features)
        beside = None if added is None else added.reshape(-1, self.out_features)
        output = states.new_empty(len(states), self.out_features)
        for part in _parts(len(states), _AT_ONCE // max(self.in_features, self.out_features)):
            numbers, scales = quantize_rows(states[part], self.zero)
            products = _product(
                numbers, self.zero, self.packed, self.factors, self.offsets, states.dtype
            )
            self._finish(products, scales, output[part])
            if beside is not None:
                output[part].add_(beside[part])
        return output.view(*input.shape[:-1], self.out_features)

    def _finish(self, products: Tensor, scales: Tensor, output: Tensor) -> None:
        """What the product leaves to do: it takes no scale of a row, so that the bias and the
        activation come after."""
        bias = self._parameters["bias"]
        if bias is None:
            torch.mul(products, scales, out=output)
        else:
            torch.addcmul(bias, products, scales, out=output)
        if self.activation == "relu":
            output.relu_()
        elif self.activation:
            output.copy_(ACTIVATIONS[self.activation](output))

    @classmethod
    def take(cls, layer: Linear, zero: int = _ZERO) -> None:
        """Make a linear layer whose weight is in eight bits one of these, in place."""
        assert layer.scales is not None
        layer.__class__ = cls
        assert isinstance(layer, cls)
        layer.packed = _pack(layer.weight.detach())
        layer.register_parameter("weight", None)
        layer.factors = layer.scales.flatten()
        layer.scales = None
        layer.offsets = torch.zeros(layer.out_features, dtype=torch.int32)
        layer.zero = zero if max_exact_level() == 255 else zero // 2


def quantize_rows(states: Tensor, zero: int) -> tuple[Tensor, Tensor]:
    """Round states [N, I] row by row: uint8 [N, I], of which ``zero`` stands for 0, and the rows'
    scales [N, 1] in the states' own precision."""
    numbers = torch.empty(states.shape, dtype=torch.uint8)
    scales = states.new_empty(len(states), 1)
    for part in _parts(len(states), _IN_CACHE // states.shape[1]):
        _round(states[part], zero, numbers[part], scales[part])
    return numbers, scales


def _round(states: Tensor, zero: int, numbers: Tensor, scales: Tensor) -> None:
    """The same into ``numbers`` and ``scales``."""
    exact = states.float()
    least = exact.amax(dim=1, keepdim=True).mul_(1 / (_LARGEST * (max_exact_level() - zero)))
    if zero:
        below = exact.amin(dim=1, keepdim=True).mul_(-1 / (_LARGEST * zero))
        least = torch.maximum(least, below)
    scales.copy_(least.clamp_(min=_SMALLEST_SCALE))
    # Rounded to what is stored: the division is by the scale that the product is multiplied by.
    factors = scales.float().reciprocal()
    whole = exact * factors if exact is states else exact.mul_(factors)
    # The sum with so large a number is rounded to a whole one, and its last byte is what is wanted.
    numbers.copy_(whole.add_(_WHOLE + zero).view(torch.int32))


@cache
def max_exact_level() -> int:
    """The largest eight-bit number that is multiplied exactly here: 255, 127, or 0 for none.

    Without instructions for it (VNNI) oneDNN adds two products in 16 bits, where those of larger
    numbers overflow without a word.
    """
    ones, none = torch.ones(64), torch.zeros(64, dtype=torch.int32)
    for most in (255, 127):
        numbers = torch.full((64, 256), most, dtype=torch.uint8)
        try:
            packed = _pack(torch.full((64, 256), 127, dtype=torch.int8))
            made = _product(numbers, 0, packed, ones, none, torch.float32)
        except (AttributeError, RuntimeError):
            return 0  # a torch without oneDNN, or a processor it has no such product for
        if bool((made == most * 127 * 256).all()):
            return most
    return 0


def int8_is_faster(layer: str, dtype: torch.dtype) -> bool:
    """Whether a layer of this name is quicker in eight bits than in ``dtype``.

    On AMX bfloat16 is so quick that rounding the many rows of images takes more than is won:
    ViT-g took 5.7 s for 16 images in place of 4.4. A language model is read from memory for every
    step, and eight bits are half of it.
    """
    on_amx = dtype is torch.bfloat16 and torch.cpu._is_amx_tile_supported()
    return not (on_amx and layer.startswith("vision_model."))


def _pack(numbers: Tensor) -> Tensor:
    packed: Tensor = torch.ops.onednn.qlinear_prepack(numbers, None)
    return packed


def _product(
    numbers: Tensor, zero: int, packed: Tensor, scales: Tensor, offsets: Tensor, dtype: torch.dtype
) -> Tensor:
    """Rows uint8 [N, I] less ``zero`` times the weight, its scales applied: ``dtype`` [N, O]."""
    made: Tensor = torch.ops.onednn.qlinear_pointwise(
        numbers, 1.0, zero, packed, scales, offsets, None, 1.0, 0, dtype, "none", [], ""
    )
    return made


def replace_linear_layers(model: nn.Module) -> None:
    """Make an ``Int8Linear`` of every linear layer of ``model`` whose weight is in eight bits."""
    zeros: dict[nn.Module, int] = {}
    for module in model.modules():
        for first, second in _FED:
            feeding, fed = module._modules.get(first), module._modules.get(second)
            if isinstance(feeding, Linear) and isinstance(fed, Linear):
                zeros[fed] = _ZEROS.get(feeding.activation, _ZERO)
    for module in list(model.modules()):
        if type(module) is Linear and module.scales is not None:
            Int8Linear.take(module, zeros.get(module, _ZERO))


def _parts(rows: int, most: int) -> list[slice]:
    """``rows`` in as few parts of about ``most`` as will do, all about equal."""
    parts = -(-rows // max(most, 1)) or 1
    step = -(-rows // parts) or 1
    return [slice(start, min(start + step, rows)) for start in range(0, rows, step)]
