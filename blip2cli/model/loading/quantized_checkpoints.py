"""Weights that are stored quantized, by ``convert`` or by others: what they stand for.

What is beside a layer's ``weight`` says how it is stored:

============================== =================================================================
``weight_int8, weight_scale``  our own, in place of ``weight`` (see ``quantize.int8_weights``)
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
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any, TypeVar

import torch
from torch import Tensor

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.lazy_weights import Weight, Weights
from blip2cli.model.quantize.int8_weights import NUMBERS, SCALES, QuantizedWeight
from blip2cli.system.memory import is_exhaustion

Read = TypeVar("Read", Tensor, QuantizedWeight)

FLOATS = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
_EIGHT_BITS = (torch.int8, torch.float8_e4m3fn, torch.float8_e5m2)
_ROW_MAJOR = 0  # of bitsandbytes' ``weight_format``; the others are those of some GPUs
_BLOCK = (128, 128)  # of finegrained FP8, where config.json does not say another
_FOUR_BIT_PARTS = ("absmax", "quant_map", "nested_absmax", "nested_quant_map")
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
        found = _whole(weights, where, name, weight, config)
        if found is not None:
            target, whole, beside = found
            made[target] = _guarded(whole, where, target)
            used |= {name, target, *beside}
    left = {name: weight for name, weight in weights.items() if name not in used}
    return left | made


def _whole(
    weights: Weights, where: str, name: str, weight: Weight, config: Mapping[str, Any]
) -> tuple[str, Weight, Sequence[str]] | None:
    """The weight that a tensor is the main part of: its name, itself, and what is beside it."""
    layer, _, last = name.rpartition(".")
    if last == NUMBERS:
        scales = f"{layer}.{SCALES}"
        whole = _rows(weight, _beside(weights, where, scales, f"{layer}.weight"))
        return f"{layer}.weight", whole, (scales,)
    if last == "weight" and weight.dtype is torch.int8 and f"{layer}.SCB" in weights:
        scales, layout = f"{layer}.SCB", f"{layer}.weight_format"
        if layout in weights and weights[layout].load().tolist() != _ROW_MAJOR:
            raise ModelError(
                None,
                f"{where} holds {name} in the layout of a GPU (bitsandbytes' weight_format)",
                REMEDY,
            )
        return name, _rows(weight, weights[scales], 127), (scales, layout)
    if last == "weight" and weight.dtype in _EIGHT_BITS:
        for scales in (f"{name}_scale", f"{name}_scale_inv"):
            if scales in weights:
                whole = _scaled(weight, weights[scales], where, name, _block(config))
                return name, whole, (scales,)
    packed, mark, _ = name.partition(_FOUR_BITS)
    if mark:
        beside = [f"{packed}.{part}" for part in _FOUR_BIT_PARTS]
        return packed, _four_bits(weights, where, packed, weight), beside
    return None


def _guarded(weight: Weight, where: str, name: str) -> Weight:
    """The same weight; ModelError is raised where what it is made of does not fit together."""

    def guard(read: Callable[[], Read]) -> Callable[[], Read]:
        def guarded() -> Read:
            try:
                return read()
            except (RuntimeError, IndexError) as error:
                if is_exhaustion(error):
                    raise
                raise _damaged(where, name, error) from error

        return guarded

    quantized = weight.quantized and guard(weight.quantized)
    return replace(weight, load=guard(weight.load), quantized=quantized)


def _damaged(where: str, name: str, error: Exception) -> ModelError:
    return ModelError(
        None,
        f"{where} holds {name} quantized, with parts that do not fit together ({error})",
        "fetch it again",
    )


def _beside(weights: Weights, where: str, name: str, of: str) -> Weight:
    found = weights.get(name)
    if found is None:
        raise ModelError(
            None, f"{where} holds {of} without its {name.rpartition('.')[2]}", "fetch it again"
        )
    return found


def _rows(numbers: Weight, scales: Weight, divisor: int = 1) -> Weight:
    """Int8 numbers [O, I] with a scale for each row, stored ``divisor`` times as large."""

    def quantized() -> QuantizedWeight:
        read = numbers.load()
        return QuantizedWeight(read, scales.load().float().reshape(len(read), 1) / divisor)

    def load() -> Tensor:
        return quantized().dequantized(torch.float32)

    return Weight(numbers.shape, torch.float32, load, quantized)


def _scaled(weight: Weight, scale: Weight, where: str, name: str, block: tuple[int, int]) -> Weight:
    """Numbers in eight bits with a scale for all, for each row or for each block."""
    out, into = weight.shape if len(weight.shape) == 2 else (0, 0)
    block = (min(block[0], max(out, 1)), min(block[1], max(into, 1)))
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
    if isinstance(size, list) and len(size) == 2 and all(type(n) is int and n > 0 for n in size):
        return size[0], size[1]
    return _BLOCK


def _four_bits(weights: Weights, where: str, name: str, state: Weight) -> Weight:
    """Two numbers a byte, the first in its high half: places in ``quant_map``, whose entries are
    multiplied by ``absmax`` of their block, which may itself be quantized."""
    try:
        settings = json.loads(bytes(state.load().tolist()))
        shape = tuple(map(int, settings["shape"]))
        size, block = math.prod(shape), int(settings["blocksize"])
        outer = int(settings.get("nested_blocksize", 1))
        offset = float(settings.get("nested_offset", 0))
    except (ValueError, TypeError, KeyError) as error:
        raise _damaged(where, name, error) from error
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
        largest = absmax.load().flatten()
        if nested is not None:
            blocks = nested_code.load().float()[largest.int()]
            largest = blocks * _spread(nested().float().flatten(), outer, len(blocks)) + offset
        values = code.load().float()[places[:size].int()]
        return values.mul_(_spread(largest.float(), block, size)).reshape(shape)

    return Weight(shape, torch.float32, load)


def _spread(scales: Tensor, block: int, count: int) -> Tensor:
    """The scale of each of ``count`` numbers, from one for each block of them."""
    if block < 1 or len(scales) != -(-count // block):
        raise RuntimeError(f"{len(scales)} scales for blocks of {block} in {count} numbers")
    return scales.repeat_interleave(min(block, count))[:count]
