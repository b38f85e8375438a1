"""Weights that are stored quantized, by ``convert`` or by others: what they stand for.

What is beside a layer's ``weight`` says how it is stored:

============================== =================================================================
``weight_int8, weight_scale``  our own, in place of ``weight`` (see ``quantize.int8``)
``SCB``                        bitsandbytes, ``load_in_8bit``: a row's largest magnitude, so 127
                               times our scale
``weight.quant_state.…``       bitsandbytes, ``load_in_4bit``: NF4 or FP4 (arXiv 2305.14314)
``weight_scale``,              int8 or float8 (compressed-tensors, FBGEMM, finegrained FP8): one
``weight_scale_inv``           factor for all, for each row or for each block
============================== =================================================================
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.weights import Weight, Weights
from blip2cli.model.quantize.int8 import NUMBERS, SCALES, QuantizedWeight

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_EIGHT_BITS = (torch.int8, torch.float8_e4m3fn, torch.float8_e5m2)
_ROW_MAJOR = 0  # of bitsandbytes' ``weight_format``; the others are those of some GPUs
_BLOCK = (128, 128)  # of finegrained FP8, where config.json does not say another
_FOUR_BITS = ".quant_state.bitsandbytes__"

# What else is known by its tensors, and its name.
_UNREAD = (
    (re.compile(r"\.g_idx$"), "GPTQ"),
    (re.compile(r"\.qweight$"), "AWQ or GPTQ"),
    (re.compile(r"\.W_q$"), "HQQ"),
    (re.compile(r"\.codebooks$"), "AQLM"),
    (re.compile(r"\.weight_(packed|zero_point)$"), "compressed-tensors"),
    (re.compile(r"\.weight_scales$"), "EETQ"),
    (re.compile(r"_weight_(qdata|quantized_data)$"), "torchao"),
    (re.compile(r"\.weight\._(data|scale|shift)$"), "quanto"),
    (re.compile(r"(_blocks|\.weight_scale_2)$"), "MXFP4 or NVFP4"),
)
_NAMES = {name.lower(): name for _, name in _UNREAD} | {
    "awq": "AWQ",
    "bitsandbytes": "bitsandbytes",
    "fp8": "FP8",
}
REMEDY = (
    "use a copy of the model in bfloat16, float16 or float32, or write one where it was made: "
    "model.dequantize() and save_pretrained in transformers"
)


def quantizer_name(config: Mapping[str, Any]) -> str | None:
    """What quantized the weights, as ``config.json`` says; None: it says nothing."""
    settings = config.get("quantization_config")
    if not settings:
        return None
    method = str(settings.get("quant_method") if isinstance(settings, dict) else settings)
    return _NAMES.get(method, method)


def dequantized(weights: Weights, where: str, config: Mapping[str, Any]) -> Weights:
    """The weights, each quantized one with what is beside it made one again.

    Raises ModelError, which names who quantized it, for what is stored in a way that is not read.
    """
    for name in weights:
        for mark, tool in _UNREAD:
            if mark.search(name):
                raise ModelError(
                    None,
                    f"{where} is quantized by {quantizer_name(config) or tool} ({name}), which is "
                    "not read",
                    REMEDY,
                )
    made: Weights = {}
    used: set[str] = set()
    for name, weight in weights.items():
        layer, _, last = name.rpartition(".")
        if last == NUMBERS:
            scales = _beside(weights, where, f"{layer}.{SCALES}", f"{layer}.weight")
            made[f"{layer}.weight"] = _rows(weight, scales)
            used |= {name, f"{layer}.{SCALES}"}
        elif last == "weight" and f"{layer}.SCB" in weights:
            _check_format(weights, where, layer)
            made[name] = _rows(weight, weights[f"{layer}.SCB"], 127)
            used |= {name, f"{layer}.SCB", f"{layer}.weight_format"}
        elif last == "weight" and weight.dtype in _EIGHT_BITS:
            for scale in (f"{name}_scale", f"{name}_scale_inv"):
                if scale in weights:
                    made[name] = _scaled(weight, weights[scale], where, name, _block(config))
                    used |= {name, scale}
        elif _FOUR_BITS in name:
            packed = name.partition(_FOUR_BITS)[0]
            made[packed] = _four_bits(weights, where, packed, weight)
            used |= {
                other for other in weights if other == packed or other.startswith(f"{packed}.")
            }
    return {
        name: made.get(name, weight) for name, weight in weights.items() if name not in used
    } | made


def _beside(weights: Weights, where: str, name: str, of: str) -> Weight:
    found = weights.get(name)
    if found is None:
        raise ModelError(
            None, f"{where} holds {of} without its {name.rpartition('.')[2]}", "fetch it again"
        )
    return found


def _check_format(weights: Weights, where: str, layer: str) -> None:
    layout = weights.get(f"{layer}.weight_format")
    if layout is not None and int(layout.load()) != _ROW_MAJOR:
        raise ModelError(
            None,
            f"{where} holds {layer}.weight in the layout of a GPU (bitsandbytes' weight_format)",
            REMEDY,
        )


def _rows(numbers: Weight, scales: Weight, divisor: int = 1) -> Weight:
    """Int8 numbers [O, I] with a scale for each row, stored ``divisor`` times as large."""

    def quantized() -> QuantizedWeight:
        by_row = scales.load().float().reshape(-1, 1) / divisor
        return QuantizedWeight(numbers.load(), by_row)

    def load() -> Tensor:
        return quantized().dequantized(torch.float32)

    return Weight(numbers.shape, torch.float32, load, quantized)


def _scaled(weight: Weight, scale: Weight, where: str, name: str, block: tuple[int, int]) -> Weight:
    """Numbers in eight bits with a scale for all, for each row or for each block."""
    out, into = weight.shape if len(weight.shape) == 2 else (0, 0)
    count = math.prod(scale.shape)
    blocks = (-(-out // block[0]), -(-into // block[1]))
    by_row = count == out and scale.shape in ((out,), (out, 1))
    if weight.dtype == torch.int8 and by_row:
        return _rows(weight, scale)
    if count != 1 and not by_row and scale.shape != blocks:
        raise ModelError(
            None,
            f"{where} holds {name} with scales in the shape {list(scale.shape)}, which is not read",
            REMEDY,
        )

    def load() -> Tensor:
        factors = scale.load().float()
        if by_row:
            factors = factors.reshape(-1, 1)
        elif count != 1:
            factors = factors.repeat_interleave(block[0], 0)[:out]
            factors = factors.repeat_interleave(block[1], 1)[:, :into]
        return weight.load().float().mul_(factors)

    return Weight(weight.shape, torch.float32, load)


def _block(config: Mapping[str, Any]) -> tuple[int, int]:
    settings = config.get("quantization_config")
    size = settings.get("weight_block_size") if isinstance(settings, dict) else None
    return (int(size[0]), int(size[1])) if size else _BLOCK


def _four_bits(weights: Weights, where: str, name: str, state: Weight) -> Weight:
    """Two numbers a byte, the first in its high half: places in ``quant_map``, whose entries are
    multiplied by ``absmax`` of their block, which may itself be quantized."""
    settings = json.loads(bytes(state.load().tolist()))
    shape = tuple(settings["shape"])
    packed, code, absmax = (
        _beside(weights, where, each, name)
        for each in (name, f"{name}.quant_map", f"{name}.absmax")
    )
    nested: Callable[[], Tensor] | None = None
    if f"{name}.nested_absmax" in weights:
        nested_code = _beside(weights, where, f"{name}.nested_quant_map", name)
        nested = weights[f"{name}.nested_absmax"].load

    def load() -> Tensor:
        # Some are saved as if their bytes were numbers of another kind.
        stored = packed.load().contiguous().flatten().view(torch.uint8)
        places = torch.stack((stored >> 4, stored & 15), dim=1).flatten()
        largest = absmax.load()
        if nested is not None:
            blocks = nested_code.load().float()[largest.int()]
            factors = nested().float().repeat_interleave(settings["nested_blocksize"])
            largest = blocks * factors[: len(blocks)] + settings["nested_offset"]
        by_number = largest.float().repeat_interleave(settings["blocksize"])
        size = math.prod(shape)
        values = code.load().float()[places[:size].int()]
        return values.mul_(by_number[:size]).reshape(shape)

    return Weight(shape, torch.float32, load)
