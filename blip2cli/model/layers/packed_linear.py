"""Linear layers on a CPU with weights in oneDNN's packed layout.

oneDNN multiplies fastest by a weight in its own layout, and adds bias, activation and residual in
the same pass. Measured on two cores with AVX512-BF16: 1.1 to 1.25 times the speed at thousands of
rows, 3 times at 16 rows in float32 and 1.5 to 2.2 times in bfloat16, where plain weights are packed
again at every call.

In bfloat16 on AMX all products of a layer have one number of rows: see ``gemm_rows``.
"""

from __future__ import annotations

import itertools

import torch
from torch import Tensor, nn
from torch.nn import functional

from blip2cli.model.layers.bitwise_probe import gives_same_bits
from blip2cli.model.layers.gemm_rows import GemmRows, fewer_rows, gemm_rows_for
from blip2cli.model.layers.linear import (
    ACTIVATIONS,
    ROW_MULTIPLE,
    Linear,
    ReplacementLinear,
    replace_linear_layers,
)

# Activations that oneDNN fuses into a product: its names for them and for their variants.
_FUSED = {
    "": ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
    "silu": ("swish", ""),
}
_multiply = torch.ops.mkldnn._linear_pointwise.default
_multiply_and_add = torch.ops.mkldnn._linear_pointwise.binary
_probed: dict[tuple[object, ...], bool] = {}  # results of ``gives_same_bits``, by shape and threads


class PackedLinear(ReplacementLinear):
    """``Linear`` with its weight in oneDNN's layout, which no other kernel can read."""

    def __init__(self, layer: Linear, gemm_rows: GemmRows | None = None) -> None:
        super().__init__(layer)
        self.gemm_rows = gemm_rows  # None: products may have any number of rows
        self._packs = not self.stored or gemm_rows is not None or not _plain_is_equal(layer)
        weight = layer.weight.detach()
        self.packed = weight if self.stored else self.prepared(weight)

    @property
    def matrix(self) -> Tensor:
        """What is multiplied: the weight, in whatever layout."""
        return self.packed

    @matrix.setter
    def matrix(self, matrix: Tensor) -> None:
        self.packed = matrix

    def prepared(self, weight: Tensor) -> Tensor:
        """A weight in oneDNN's layout; one that is streamed as it is, where that gives the same
        bits: to pack a matrix takes longer than to multiply 64 rows by it."""
        if not self._packs:
            return weight
        packed: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight)
        return packed

    def sequences_per_gemm(self, length: int) -> int:
        """How many sequences of ``length`` tokens go into one product; 0: any number."""
        return 0 if self.gemm_rows is None else self.gemm_rows.sequences(length)

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:  # noqa: A002 - nn's
        """[..., in_features] to [..., out_features], ``residual`` of that shape added."""
        rows = input.reshape(-1, self.in_features)
        added = None if residual is None else residual.reshape(-1, self.out_features)
        length = input.shape[-2] if input.dim() > 2 else 1
        size = self.sequences_per_gemm(length) * length
        if size and len(rows) > size:
            residuals = itertools.repeat(None) if added is None else added.split(size)
            chunks = zip(rows.split(size), residuals, strict=False)
            output = torch.cat([self._gemm(chunk, each, size) for chunk, each in chunks])
        else:
            output = self._gemm(rows, added, size)
        return output.view(*input.shape[:-1], self.out_features)

    def _gemm(self, rows: Tensor, residual: Tensor | None, size: int) -> Tensor:
        """One product, [N, in_features] to [N, out_features], padded to as many rows as give a row
        the bits that it has among ``size`` (0: any number)."""
        padded = ROW_MULTIPLE
        if size > len(rows):
            adds = residual is not None
            least = max(1, -(-len(rows) // ROW_MULTIPLE)) * ROW_MULTIPLE
            fewer = fewer_rows(least, size)
            padded = next((few for few in fewer if self._gives_same_bits(few, size, adds)), size)
        flat = _pad_rows(rows, padded)
        if residual is not None:
            residual = _pad_rows(residual, padded)
        return self._product(flat, residual, self.bias)[: len(rows)]

    def _product(self, rows: Tensor, residual: Tensor | None, bias: Tensor | None) -> Tensor:
        name, variant = _FUSED.get(self.activation, ("none", ""))
        if residual is not None and not self.activation:
            return _multiply_and_add(rows, residual, self.packed, bias, "add")  # type: ignore[no-any-return]
        output: Tensor = _multiply(rows, self.packed, bias, name, [], variant)
        if self.activation and self.activation not in _FUSED:
            output = ACTIVATIONS[self.activation](output)
        return output if residual is None else output + residual

    def _gives_same_bits(self, few: int, many: int, adds: bool) -> bool:
        """Whether a row among ``few`` gets the bits that it gets among ``many``."""
        if few >= many:
            return few == many
        adds = adds and not self.activation
        biased = self.bias is not None
        sizes = (self.in_features, self.out_features, few, many)
        key = (*sizes, biased, self.activation, adds, torch.get_num_threads())
        if key not in _probed:

            def plain(rows: Tensor) -> Tensor:
                product: Tensor = _multiply(rows, self.packed, None, "none", [], "")
                return product

            _probed[key] = gives_same_bits(self._product, plain, sizes, biased, adds)
        return _probed[key]


def _plain_is_equal(layer: Linear) -> bool:
    """Whether oneDNN gives rows the same bits by a stored weight as by the packed one. Measured
    without AMX at 1 and 2 threads, float32 and bfloat16, eight shapes: it does."""
    key = ("plain", layer.in_features, layer.out_features, layer.weight.dtype)
    if key not in _probed:
        weight = torch.cat([load() for load in layer.stored])
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        rows = torch.randn(9 * ROW_MULTIPLE, layer.in_features).to(weight.dtype)
        _probed[key] = all(
            torch.equal(
                _multiply(few, packed, None, "none", [], ""),
                _multiply(few, weight, None, "none", [], ""),
            )
            for few in (rows[:ROW_MULTIPLE], rows)
        )
    return _probed[key]


def _pad_rows(rows: Tensor, least: int) -> Tensor:
    """Contiguous rows, zeros appended up to ``least``."""
    short = least - len(rows)
    return functional.pad(rows, (0, 0, 0, short)) if short > 0 else rows.contiguous()


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN computes in this precision here."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float32


def pack_weights(model: nn.Module) -> None:
    """Replace the linear layers inside ``model`` that oneDNN can run by ``PackedLinear``."""

    def bytes_to_pack(layer: nn.Module) -> int:
        if type(layer) is not Linear:
            return 0
        device = torch.device("cpu") if layer.stored else layer.weight.device
        return layer.weight.nbytes if can_pack(device, layer.weight.dtype) else 0

    total = sum(map(bytes_to_pack, model.modules()))

    def replacement(name: str, layer: Linear) -> PackedLinear | None:
        if not bytes_to_pack(layer):
            return None
        return PackedLinear(layer, gemm_rows_for(layer.weight.dtype, name, total))

    replace_linear_layers(model, replacement)


def has_fixed_gemm_rows(model: nn.Module) -> bool:
    """Whether a row's bits depend on how many rows and threads a product of ``model`` has."""
    return any(isinstance(layer, PackedLinear) and layer.gemm_rows for layer in model.modules())
