"""Linear layers whose rows do not depend on what else is in the batch, in the quickest form.

**Rows.** A CPU matrix product splits its rows over threads and kernels by their number. Measured
with torch 2.13 at 1 to 64 threads and ten shapes: with plain weights (MKL, float32) a row's bits
depend on the row count unless that is a multiple of four; with packed ones (oneDNN, float32 and
bfloat16 without AMX, eleven shapes) only a single row differs. So rows are brought together, and
filled up to a multiple of eight.

**Equal calls.** bfloat16 on AMX: all products of a layer have one number of rows, see ``calls``.

**Packed weights.** oneDNN multiplies fastest by a weight in its own layout, and then adds the bias,
the activation and what is to be added to the result in the same pass. Measured on two cores with
AVX512-BF16: 1.1 to 1.25 times the speed at thousands of rows, 3 times at 16 rows in float32 and 1.5
to 2.2 times in bfloat16, where plain weights are brought into that layout at every call.

**Joined layers.** Layers that read the same states, such as those of query, key and value, are run
as one.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional

from blip2cli.model.layers.bitwise_probe import gives_same_bits
from blip2cli.model.layers.gemm_rows import GemmRows, fewer_rows, gemm_rows_for

ROWS = 8  # row counts are rounded up to a multiple of this


def _gelu_tanh(states: Tensor) -> Tensor:
    return functional.gelu(states, approximate="tanh")


def _quick_gelu(states: Tensor) -> Tensor:
    return states * torch.sigmoid(1.702 * states)


# By transformers' names (ACT2FN in activations.py), those that models of these families come with.
ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "gelu": functional.gelu,
    "gelu_new": _gelu_tanh,
    "gelu_pytorch_tanh": _gelu_tanh,
    "quick_gelu": _quick_gelu,
    "relu": functional.relu,
    "silu": functional.silu,
    "swish": functional.silu,
    "tanh": torch.tanh,
}
# What oneDNN does in the same pass: its name, and the kind of it.
_FUSED = {
    "": ("none", ""),
    "gelu": ("gelu", "none"),
    "gelu_new": ("gelu", "tanh"),
    "gelu_pytorch_tanh": ("gelu", "tanh"),
    "relu": ("relu", ""),
}


class Linear(nn.Linear):
    """``nn.Linear``, then an activation by name; "" is none."""

    def __init__(
        self, in_features: int, out_features: int, bias: bool = True, activation: str = ""
    ) -> None:
        super().__init__(in_features, out_features, bias)
        self.activation = activation
        # float32 [O, 1] beside a weight of whole numbers, see ``int8``; else None.
        self.scales: Tensor | None = None

    def reset_parameters(self) -> None:
        """Leave the weights as they are: a file's take their place."""

    def sequences_per_gemm(self, length: int) -> int:
        """How many sequences of ``length`` go into one product; 0: any number."""
        return 0

    def forward(self, input: Tensor, added: Tensor | None = None) -> Tensor:  # noqa: A002 - its name
        """Map [..., in_features] to [..., out_features]; ``added`` is added to the result."""
        rows = input.numel() // self.in_features
        # Rows that lie apart in memory, such as the last positions of a prefix, would be
        # multiplied by another kernel than rows that lie side by side.
        flat = input.reshape(rows, self.in_features).contiguous()
        short = -rows % ROWS if flat.device.type == "cpu" else 0
        if short:
            flat = functional.pad(flat, (0, 0, 0, short))
        output = functional.linear(flat, self.weight, self.bias)[:rows]
        if self.activation:
            output = ACTIVATIONS[self.activation](output)
        output = output.view(*input.shape[:-1], self.out_features)
        return output if added is None else output + added


class PackedLinear(Linear):
    """The same with the weight in oneDNN's layout, which nothing else can read."""

    packed: Tensor
    calls: GemmRows | None  # None: of any number of rows

    def forward(self, input: Tensor, added: Tensor | None = None) -> Tensor:  # noqa: A002 - its name
        """Map [..., in_features] to [..., out_features]; ``added`` is added to the result."""
        rows = input.reshape(-1, self.in_features)
        beside = None if added is None else added.reshape(-1, self.out_features)
        length = input.shape[-2] if input.dim() > 2 else 1
        size = self.sequences_per_gemm(length) * length
        if size and len(rows) > size:
            besides = itertools.repeat(None) if beside is None else beside.split(size)
            calls = zip(rows.split(size), besides, strict=False)
            output = torch.cat([self._call(some, each, size) for some, each in calls])
        else:
            output = self._call(rows, beside, size)
        return output.view(*input.shape[:-1], self.out_features)

    def sequences_per_gemm(self, length: int) -> int:
        """How many sequences of ``length`` go into one product; 0: any number."""
        return 0 if self.calls is None else self.calls.sequences(length)

    def _call(self, rows: Tensor, beside: Tensor | None, size: int) -> Tensor:
        """One product: [N, in_features] to [N, out_features], with the bits that a row has among
        ``size``, where that is not 0."""
        least = ROWS
        if size > len(rows):
            adds = beside is not None
            fewer = fewer_rows(max(1, -(-len(rows) // ROWS)) * ROWS, size)
            least = next((few for few in fewer if self._agrees(few, size, adds)), size)
        flat = _filled_up(rows, least)
        if beside is not None:
            beside = _filled_up(beside, least)
        return self._product(flat, beside, self.bias)[: len(rows)]

    def _product(self, rows: Tensor, beside: Tensor | None, bias: Tensor | None) -> Tensor:
        name, kind = _FUSED.get(self.activation, ("none", ""))
        if beside is not None and not self.activation:
            return _add(rows, beside, self.packed, bias, "add")  # type: ignore[no-any-return]
        output: Tensor = _multiply(rows, self.packed, bias, name, [], kind)
        if self.activation and self.activation not in _FUSED:
            output = ACTIVATIONS[self.activation](output)
        return output if beside is None else output + beside

    def _agrees(self, few: int, many: int, adds: bool) -> bool:
        """Whether so few rows get the bits that they get among so many."""
        if few >= many:
            return few == many
        adds = adds and not self.activation
        biased = self.bias is not None
        sizes = (self.in_features, self.out_features, few, many)
        key = (*sizes, biased, self.activation, adds, torch.get_num_threads())
        if key not in _agreements:

            def plain(rows: Tensor) -> Tensor:
                made: Tensor = _multiply(rows, self.packed, None, "none", [], "")
                return made

            _agreements[key] = gives_same_bits(self._product, plain, sizes, biased, adds)
        return _agreements[key]

    @classmethod
    def take(cls, layer: Linear, calls: GemmRows | None = None) -> None:
        """Make a linear layer one of these, in place."""
        layer.packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach())
        layer.register_parameter("weight", None)
        layer.__class__ = cls
        assert isinstance(layer, cls)
        layer.calls = calls


def split_sequences(states: Tensor, layer: Linear) -> list[Tensor]:
    """States [B, T, D] in groups of as many sequences as go into one product of ``layer``.

    Layers that are run group by group need not join what their products give.
    """
    size = 0 if torch.compiler.is_compiling() else layer.sequences_per_gemm(states.shape[1])
    return list(states.split(size)) if size else [states]


def merge_sequences(groups: Sequence[Tensor]) -> Tensor:
    """What ``grouped`` parted."""
    return groups[0] if len(groups) == 1 else torch.cat(list(groups))


def has_fixed_gemm_rows(model: nn.Module) -> bool:
    """Whether the bits of a row depend on how many rows and threads a product of it has."""
    return any(isinstance(layer, PackedLinear) and layer.calls for layer in model.modules())


_agreements: dict[tuple[object, ...], bool] = {}


def _filled_up(rows: Tensor, least: int) -> Tensor:
    """At least so many rows, side by side."""
    short = least - len(rows)
    return functional.pad(rows, (0, 0, 0, short)) if short > 0 else rows.contiguous()


_multiply = torch.ops.mkldnn._linear_pointwise.default
_add = torch.ops.mkldnn._linear_pointwise.binary


class FusableProjections(nn.Module):
    """A module that runs some of its linear layers together, as soon as they are joined."""

    FUSABLE: ClassVar[tuple[tuple[str, ...], ...]] = ()  # names of layers that read the same

    def project(self, states: Tensor, *names: str) -> Sequence[Tensor]:
        """What the layers of these names make of ``states``."""
        layer = self._modules.get("_".join(names))
        if layer is None:
            return [self._modules[name](states) for name in names]  # type: ignore[misc]
        made: Tensor = layer(states)
        return made.chunk(len(names), dim=-1)

    def join(self) -> None:
        """Join the layers; they are gone afterwards."""
        for names in self.FUSABLE:
            if names[0] in self._modules:
                layers: list[Any] = [self._modules.pop(name) for name in names]
                self.add_module("_".join(names), _joined(layers))


def _joined(layers: Sequence[Linear]) -> Linear:
    first = layers[0]
    with torch.device("meta"):
        whole = Linear(first.in_features, sum(layer.out_features for layer in layers), False)
    weights: list[Tensor] = [layer.weight for layer in layers]
    whole.weight = nn.Parameter(torch.cat(weights), False)
    scales = [layer.scales for layer in layers if layer.scales is not None]
    whole.scales = torch.cat(scales) if scales else None
    biases = [layer.bias for layer in layers]
    if any(bias is not None for bias in biases):
        zeros = next(bias for bias in biases if bias is not None).new_zeros
        parts: list[Tensor] = [
            zeros(layer.out_features) if bias is None else bias
            for layer, bias in zip(layers, biases, strict=True)
        ]
        whole.bias = nn.Parameter(torch.cat(parts), False)
    return whole


def can_pack(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN computes in this precision here."""
    if device.type != "cpu" or not torch.backends.mkldnn.is_available():
        return False
    if dtype is torch.bfloat16:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())
    return dtype is torch.float32


def fuse_projections(model: nn.Module) -> None:
    """Join all layers of ``model`` that can be."""
    for module in list(model.modules()):
        if isinstance(module, FusableProjections):
            module.join()


def pack_weights(model: nn.Module) -> None:
    """Pack all linear layers of ``model`` that oneDNN can run; they are on a CPU."""
    layers = {
        name: layer
        for name, layer in model.named_modules()
        if type(layer) is Linear and can_pack(layer.weight.device, layer.weight.dtype)
    }
    total = sum(layer.weight.nbytes for layer in layers.values())
    for name, layer in layers.items():
        PackedLinear.take(layer, gemm_rows_for(layer.weight.dtype, name, total))
