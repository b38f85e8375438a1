"""Choice of device and precision, with the reason as text for the log and ``doctor``."""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from functools import cache

import torch

from blip2cli.errors import ModelError, OptionError, option
from blip2cli.model.families import Family
from blip2cli.model.placement.thresholds import FLOAT32_BELOW
from blip2cli.model.quantize.library_layers import QUANTIZERS, Quantizer, installed_quantizer
from blip2cli.options import Dtype, Quantize

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}
DEVICES = "auto, cpu, cuda, cuda:N or mps"


@dataclass(frozen=True)
class Placement:
    """Where a model runs and in which precision."""

    device: torch.device
    dtype: torch.dtype
    reason: str
    quantize: Quantize | None = None  # scheme of the linear layers
    quantizer: Quantizer | None = None  # the package that has it; None: we, on a CPU


def place(
    device: str,
    dtype: Dtype,
    family: Family,
    weight_bytes: int,
    quantize: Quantize | None = None,
) -> Placement:
    """Choose device and precision.

    ``weight_bytes`` is the size of the weight files. Raises ModelError when the device is not
    available and OptionError when the precision does not fit the device or the language model.
    """
    where, why_there = _device(device)
    what, why_that = _dtype(dtype, where, family, weight_bytes)
    name = str(what).removeprefix("torch.")
    reason = f"{where} ({why_there}), {name} ({why_that})"
    quantizer = None
    if quantize is not None:
        if where.type == "cuda":
            quantizer = installed_quantizer(quantize)
        reason += f", linear layers in {quantize} ({_quantized(quantize, where, what, quantizer)})"
    return Placement(where, what, reason, quantize, quantizer)


def _device(name: str) -> tuple[torch.device, str]:
    if name == "auto":
        if torch.cuda.is_available():
            ranked = _ranked_gpu(torch.cuda.device_count())
            return ranked or (torch.device("cuda"), "a CUDA device is there")
        if torch.backends.mps.is_available():
            return torch.device("mps"), "Apple's MPS is there"
        return torch.device("cpu"), "torch sees no other device"
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(
            "device", f"{option('device')} {name} is not a device", f"use {DEVICES}"
        ) from error
    if device.type == "cpu":
        return torch.device("cpu"), "asked for"
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise ModelError(
                "device",
                f"{name} was asked for, but torch sees no GPU",
                f"use {option('device')} cpu",
            )
        if (device.index or 0) >= count:
            last = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
            raise ModelError("device", f"{name} was asked for, but torch sees only {last}")
        return device, "asked for"
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            raise ModelError(
                "device",
                "mps was asked for, but torch does not offer it",
                f"use {option('device')} cpu",
            )
        return device, "asked for"
    raise OptionError("device", f"{option('device')} {name} is not supported", f"use {DEVICES}")


def _ranked_gpu(count: int) -> tuple[torch.device, str] | None:
    """The GPU for this process among those that a launcher started on this machine.

    Where each process sees ``count`` = 1 GPU only, the launcher has shared them out itself.
    """
    for variable in ("LOCAL_RANK", "SLURM_LOCALID"):
        rank = os.environ.get(variable, "")
        if count > 1 and re.fullmatch("[0-9]+", rank):
            return torch.device("cuda", int(rank) % count), f"{variable} is {rank}"
    return None


def _dtype(
    name: Dtype, device: torch.device, family: Family, weight_bytes: int
) -> tuple[torch.dtype, str]:
    if name != "auto":
        if name not in DTYPES:
            raise OptionError(
                "dtype",
                f"{option('dtype')} {name} is not supported",
                f"use auto or one of {', '.join(DTYPES)}",
            )
        family.check_dtype(name)
        if name == "float16" and device.type == "cpu":
            raise OptionError(
                "dtype",
                f"{option('dtype')} float16 is slower than float32 on a CPU",
                f"use {option('dtype')} float32, or bfloat16 where the CPU has instructions for it",
            )
        return DTYPES[name], "asked for"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "the GPU computes in it"
        return torch.float32, "the GPU has no bfloat16"
    if device.type == "cpu":
        fast = cpu_bfloat16()
        if fast is None:
            return torch.float32, "the CPU has neither AMX nor AVX512-BF16"
        if weight_bytes < FLOAT32_BELOW:
            return torch.float32, "quick enough for a model this small"
        gain = bfloat16_speedup()
        if gain < 1:
            return torch.float32, f"quicker here, although the CPU has {fast}"
        return torch.bfloat16, f"{gain:.1f} times as quick on this CPU, which has {fast}"
    return torch.float32, "exact everywhere"


def _quantized(
    name: Quantize, device: torch.device, dtype: torch.dtype, quantizer: Quantizer | None
) -> str:
    """By what, or how fast, quantized products are computed. Raises OptionError where they cannot
    be."""
    given = f"{option('quantize')} {name}"
    if name not in QUANTIZERS:
        raise OptionError(
            "quantize", f"{given} is not supported", f"use one of {', '.join(QUANTIZERS)}"
        )
    if device.type == "cuda":
        if quantizer is None:
            packages = [each.package for each in QUANTIZERS[name]]
            raise OptionError(
                "quantize",
                f"{given} on a GPU needs the package {' or '.join(packages)}: pip install "
                f"{packages[0]}, or leave {option('quantize')} out",
            )
        return f"by {quantizer.package}"
    if device.type != "cpu":
        raise OptionError(
            "quantize",
            f"{given} does not run on {device.type}",
            f"use {option('device')} cpu, or leave it out",
        )
    if name != "int8":
        raise OptionError(
            "quantize",
            f"{given} is for GPUs: on a CPU four bits are slower than eight, and less exact",
            f"use {option('quantize')} int8",
        )
    from blip2cli.model.quantize.int8_layers import int8_is_faster, max_exact_level

    exact = max_exact_level()
    if not exact:
        raise OptionError(
            "quantize",
            f"{given} needs a torch with oneDNN, and a processor that it multiplies eight-bit "
            "numbers on",
            "leave it out",
        )
    if not int8_is_faster("vision_model.", dtype):
        return "but the vision encoder's, quicker as they are on AMX"
    if exact == 255:
        return "the CPU has instructions for them"
    return "slower than on a CPU with VNNI, and states are rounded to seven bits"


@cache
def bfloat16_speedup() -> float:
    """How many times as fast as in float32 a matrix product is in bfloat16 on this CPU, measured.

    Instructions alone do not tell: a virtual machine may offer slow ones. A few milliseconds.
    """
    taken = []
    for dtype in (torch.float32, torch.bfloat16):
        rows, weight = torch.ones(64, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
        runs = []
        for _ in range(4):  # the first one warms up
            began = time.perf_counter()
            torch.nn.functional.linear(rows, weight)
            runs.append(time.perf_counter() - began)
        taken.append(min(runs))
    return taken[0] / taken[1]


def cpu_bfloat16() -> str | None:
    """Name of the CPU's bfloat16 matrix instructions, or None when it has none."""
    if torch.cpu._is_amx_tile_supported():
        return "AMX"
    if torch.cpu._is_avx512_bf16_supported():
        return "AVX512-BF16"
    return None
