"""Quantized linear layers of bitsandbytes or torchao in the places of ours, on CUDA.

Module by module, as transformers' documentation does it, heads and what overflows float16 left out.
A layer's output has the precision of its input.

==== ============ =====================================================================
bits package      scheme
==== ============ =====================================================================
8    bitsandbytes LLM.int8() (arXiv 2208.07339) with its threshold of 6: ``load_in_8bit``
8    torchao      weight-only, a scale for each output: ``Int8WeightOnlyConfig``
4    bitsandbytes NF4 (arXiv 2305.14314), weight-only, in blocks of 64: ``load_in_4bit``
==== ============ =====================================================================

bitsandbytes' eight bits make the host wait for the device in every layer, which no CUDA graph can
capture; torchao's dequantize the whole weight for every product.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from blip2cli.model.layers.linear import (
    ACTIVATIONS,
    Linear,
    ReplacementLinear,
    replace_linear_layers,
)
from blip2cli.options import Quantize
from blip2cli.system.library_logging import silence_packages

_THRESHOLD = 6.0  # outliers beyond it are multiplied in float16


class LibraryLinear(ReplacementLinear):
    """``Linear`` whose product is computed by a library's layer."""

    def __init__(self, layer: Linear, inner: nn.Module, quantizer: Quantizer) -> None:
        super().__init__(layer)
        self.quantizer = quantizer
        self.register_parameter("bias", None)  # ``inner`` has it
        self.inner = inner

    def forward(self, input: Tensor, residual: Tensor | None = None) -> Tensor:  # noqa: A002 - nn's
        """[..., in_features] to [..., out_features], ``residual`` of that shape added."""
        output: Tensor = self.inner(input)
        if self.activation:
            output = ACTIVATIONS[self.activation](output)
        return output if residual is None else output + residual


@dataclass(frozen=True)
class Quantizer:
    """One scheme of one package."""

    package: str
    # Makes the library's layer from ours, whose weight is still on the CPU and whose bias is on the
    # device already; the weight is quantized at once or on its way to the device.
    make: Callable[[Linear], nn.Module]
    weight_dtype: torch.dtype | None = None  # before quantizing; None: the model's precision

    @property
    def is_capturable(self) -> bool:
        """Whether a CUDA graph can hold its products: not where the host waits in between."""
        return self.package != "bitsandbytes"


def installed_quantizer(quantize: Quantize) -> Quantizer | None:
    """The first one whose package is installed; None: none is."""
    return next((each for each in QUANTIZERS.get(quantize, ()) if find_spec(each.package)), None)


def use_library_layers(model: nn.Module, device: torch.device, quantizer: Quantizer) -> None:
    """Quantize the linear layers inside ``model`` that are still on the CPU, onto ``device``."""
    # Written at every first product in bfloat16; the choice is bitsandbytes' own.
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")

    def replacement(name: str, layer: Linear) -> LibraryLinear | None:
        if layer.weight.device.type != "cpu":
            return None
        with silence_packages("torch", quantizer.package):
            inner = quantizer.make(layer).requires_grad_(False)
        return LibraryLinear(layer, inner.to(device), quantizer)

    replace_linear_layers(model, replacement)


def why_not_capturable(model: nn.Module) -> str | None:
    """Why CUDA graphs cannot hold the steps of ``model``; None: they can."""
    layers = (each for each in model.modules() if isinstance(each, LibraryLinear))
    packages = (each.quantizer.package for each in layers if not each.quantizer.is_capturable)
    package = next(packages, None)
    return package and f"layers of {package} cannot be captured"


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


def _weight_only(layer: Linear) -> nn.Module:
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


_BITSANDBYTES = Quantizer("bitsandbytes", _llm_int8, torch.float16)
_TORCHAO = Quantizer("torchao", _weight_only)
# The packages that have a scheme, the first one that is installed; int8 is theirs where a GPU has
# no products of ours (see ``cuda_layers``).
QUANTIZERS: dict[Quantize, tuple[Quantizer, ...]] = {
    "int8": (_BITSANDBYTES, _TORCHAO),
    "int4": (Quantizer("bitsandbytes", _nf4),),
    "int8-bitsandbytes": (_BITSANDBYTES,),
    "int8-torchao": (_TORCHAO,),
}
