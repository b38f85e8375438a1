"""``--quantize int8`` on CUDA: bitsandbytes' layers in the places of ours.

As ``load_in_8bit`` of transformers' documentation does it: LLM.int8() (arXiv 2208.07339) with its
threshold of 6, module by module, the heads and what float16 is too narrow for left out.
"""

from __future__ import annotations

import warnings
from typing import Any

import torch
from torch import Tensor, nn

from blip2cli.model.linear import ACTIVATIONS, Linear

_THRESHOLD = 6.0  # states beyond it are multiplied in float16


class BitsAndBytesLinear(Linear):
    """The same as ``Linear``, its product made by ``bitsandbytes.nn.Linear8bitLt``."""

    inner: nn.Module

    def forward(self, input: Tensor, added: Tensor | None = None) -> Tensor:  # noqa: A002 - its name
        """Map [..., in_features] to [..., out_features]; ``added`` is added to the result."""
        output: Tensor = self.inner(input)
        if self.activation:
            output = ACTIVATIONS[self.activation](output)
        return output if added is None else output + added


def take_all(model: nn.Module, device: torch.device) -> None:
    """Round the linear layers that wait on the CPU for it, and bring them to ``device``."""
    import bitsandbytes

    # Said at every first product in bfloat16; the choice is bitsandbytes' own.
    warnings.filterwarnings("ignore", message="MatMul8bitLt: inputs will be cast")
    for layer in list(model.modules()):
        if type(layer) is Linear and layer.weight.device.type == "cpu":
            _take(layer, bitsandbytes.nn, device)


def _take(layer: Linear, theirs: Any, device: torch.device) -> None:
    inner = theirs.Linear8bitLt(
        layer.in_features,
        layer.out_features,
        bias=layer.bias is not None,
        has_fp16_weights=False,
        threshold=_THRESHOLD,
    )
    inner.weight = theirs.Int8Params(layer.weight.data, requires_grad=False, has_fp16_weights=False)
    if layer.bias is not None:
        inner.bias = layer.bias
    layer.register_parameter("weight", None)
    layer.register_parameter("bias", None)
    layer.inner = inner.to(device)
    layer.__class__ = BitsAndBytesLinear
