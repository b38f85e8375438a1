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
from blip2cli.model.placement.cuda_devices import (
    REMEDY,
    cuda_available,
    cuda_count,
    cuda_trouble,
    has_bfloat16,
    no_cuda,
)
from blip2cli.model.placement.quantization import choose_quantizer
from blip2cli.model.placement.thresholds import FLOAT32_BELOW
from blip2cli.model.quantize.library_layers import Quantizer
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
    quantizer: Quantizer | None = None  # the package that has it; None: we
    # What ``auto`` takes where the weights do not fit in ``dtype``; None: nothing.
    smaller: torch.dtype | None = None
    remarks: tuple[str, ...] = ()  # what a user should know of it, as sentences


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
        quantizer, how = choose_quantizer(quantize, where, what)
        reason += f", linear layers in {quantize} ({how})"
    smaller = None
    if where.type == "cuda" and dtype == "auto" and what is torch.float32:
        smaller = torch.bfloat16  # emulated, with the range of float32
    remarks: tuple[str, ...] = ()
    if device == "auto" and where.type != "cuda" and (trouble := cuda_trouble()):
        remarks = (f"torch cannot use the GPU, so the model runs on {where}: {trouble}; {REMEDY}",)
    return Placement(where, what, reason, quantize, quantizer, smaller, remarks)


def _device(name: str) -> tuple[torch.device, str]:
    if name == "auto":
        if cuda_available():
            ranked = _ranked_gpu(torch.cuda.device_count())
            return ranked or (torch.device("cuda"), "a CUDA device is there")
        if torch.backends.mps.is_available():
            return torch.device("mps"), "Apple's MPS is there"
        return torch.device("cpu"), (
            "torch cannot use the GPU" if cuda_trouble() else "torch sees no other device"
        )
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OptionError(
            "device", f"{option('device')} {name} is not a device", f"use {DEVICES}"
        ) from error
    if device.type == "cpu":
        return torch.device("cpu"), "asked for"
    if device.type == "cuda":
        count = cuda_count()
        if count == 0:
            raise no_cuda(name)
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
        if has_bfloat16(device):
            return torch.bfloat16, "the GPU computes in it"
        if "float16" not in family.unfit_dtypes:
            return torch.float16, "the GPU has no bfloat16"
        return torch.float32, f"the GPU has no bfloat16, and float16 {family.unfit_because}"
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
