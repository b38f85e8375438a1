"""``--quantize`` on CUDA: layers of bitsandbytes or torchao in the places of ours.

Module by module, as transformers' documentation does it, the heads and what float16 is too narrow
for left out. A layer gives its results in the precision of the states that come.

==== ============ =====================================================================
bits package      scheme
==== ============ =====================================================================
8    bitsandbytes LLM.int8() (arXiv 2208.07339) with its threshold of 6: ``load_in_8bit``
8    torchao      weights alone, a scale for each output: ``Int8WeightOnlyConfig``
4    bitsandbytes NF4 (arXiv 2305.14314), weights alone, in blocks of 64: ``load_in_4bit``
==== ============ =====================================================================
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from blip2cli.model.layers.linear import ACTIVATIONS, Linear
from blip2cli.options import Quantize
from blip2cli.system.library_logging import silence_packages

_THRESHOLD = 6.0  # states beyond it are multiplied in float16


class LibraryLinear(Linear):
    """The same as ``Linear``, its product made by another package's layer."""

    inner: nn.Module

    def forward(self, input: Tensor, added: Tensor | None = None) -> Tensor:  # noqa: A002 - its name
        """Map [..., in_features] to [..., out_features]; ``added`` is added to the result."""
        output: Tensor = self.inner(input)
        if self.activation:
            output = ACTIVATIONS[self.activation](output)
        return output if added is None else output + added


@dataclass(frozen=True)
class Quantizer:
    """One way to round."""

    package: str
    # The layer that has the weight of ours, still on the CPU, rounded there or on its way, and its
    # bias, which is on the device already.
    make: Callable[[Linear], nn.Module]
    # How it wants weights before they are rounded; None: in the model's precision.
    wanted: torch.dtype | None = None


def installed_quantizer(quantize: Quantize) -> Quantizer | None:
    """The first that is installed; None: none is."""
    return next((each for each in QUANTIZERS[quantize] if find_spec(each.package)), None)


def replace_linear_layers(model: nn.Module, device: torch.device, quantizer: Quantizer) -> None:
    """Round the linear layers that wait on the CPU for it, and bring them to ``device``."""
    # Said at every first product in bfloat16; the choice is bitsandbytes' own.
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
    for layer in list(model.modules()):
        if type(layer) is Linear and layer.weight.device.type == "cpu":
            with silence_packages("torch", quantizer.package):
                inner = quantizer.make(layer).requires_grad_(False)
            layer.register_parameter("weight", None)
            layer.register_parameter("bias", None)
            layer.inner = inner.to(device)
            layer.__class__ = LibraryLinear


def _llm_int8(layer: Linear) -> nn.Module:
    import bitsandbytes

    kinds = bitsandbytes.nn
    inner = kinds.Linear8bitLt(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        has_fp16_weights=False,
        threshold=_THRESHOLD,
    )
    inner.weight = kinds.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    return _with_bias(inner, layer)


def _nf4(layer: Linear) -> nn.Module:
    import bitsandbytes

    kinds = bitsandbytes.nn
    inner = kinds.Linear4bit(
        layer.in_features, layer.out_features, bias=layer.bias is not None, quant_type="nf4"
    )
    inner.weight = kinds.Params4bit(layer.weight.data, requires_grad=False, quant_type="nf4")
    return _with_bias(inner, layer)


def _weights_alone(layer: Linear) -> nn.Module:
    from torchao.quantization import Int8WeightOnlyConfig, quantize_

    inner = nn.Linear(layer.in_features, layer.out_features, layer.bias is not None, device="meta")
    inner.weight = layer.weight
    holder = nn.Sequential(_with_bias(inner, layer))
    quantize_(holder, Int8WeightOnlyConfig())
    return holder[0]


def _with_bias(inner: nn.Module, layer: Linear) -> nn.Module:
    if layer.bias is not None:
        inner.bias = layer.bias
    return inner


QUANTIZERS: dict[Quantize, tuple[Quantizer, ...]] = {
    "int8": (
        Quantizer("bitsandbytes", _llm_int8, torch.float16),
        Quantizer("torchao", _weights_alone),
    ),
    "int4": (Quantizer("bitsandbytes", _nf4),),
}
