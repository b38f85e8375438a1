"""Which device and which precision, and why.

The reason is kept as text beside the choice, for ``-v`` and ``doctor``.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from functools import cache

import torch

from blip2cli.errors import ModelError, OptionError
from blip2cli.model.families import Family
from blip2cli.model.quantize.libraries import QUANTIZERS, installed_quantizer
from blip2cli.options import Dtype, Quantize

DTYPES = {
    "float32": torch.float32,
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
}

# Below this many bytes of weights a CPU computes in float32: such a model is quick as it is, and in
# bfloat16 a text here and there would be another (none to one of 400 of the embedded models').
SMALL_WEIGHTS = 64 << 20


@dataclass(frozen=True)
class Placement:
    """Where a model runs and in which precision."""

    device: torch.device
    dtype: torch.dtype
    reason: str
    quantize: Quantize | None = None  # what linear layers are rounded to


def place(
    device: str,
    dtype: Dtype,
    family: Family,
    weight_bytes: int,
    quantize: Quantize | None = None,
) -> Placement:
    """Choose device and precision.

    ``weight_bytes`` is the size of the weight files. Raises ModelError when the device is not
    there and OptionError when the precision does not fit the device or the language model.
    """
    where, why_there = _device(device)
    what, why_that = _dtype(dtype, where, family, weight_bytes)
    name = str(what).removeprefix("torch.")
    reason = f"{where} ({why_there}), {name} ({why_that})"
    if quantize is not None:
        reason += f", linear layers in {quantize} ({_quantized(quantize, where, what)})"
    return Placement(where, what, reason, quantize)


def _device(asked: str) -> tuple[torch.device, str]:
    if asked == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda"), "a CUDA device is there"
        if torch.backends.mps.is_available():
            return torch.device("mps"), "Apple's MPS is there"
        return torch.device("cpu"), "torch sees no other device"
    try:
        device = torch.device(asked)
    except RuntimeError as error:
        raise OptionError(
            f"--device {asked} is not a device; use auto, cpu, cuda, cuda:N or mps."
        ) from error
    if device.type == "cpu":
        return torch.device("cpu"), "asked for"
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if count == 0:
            raise ModelError(f"{asked} was asked for, but torch sees no GPU; use --device cpu.")
        if (device.index or 0) >= count:
            last = "cuda:0" if count == 1 else f"cuda:0 to cuda:{count - 1}"
            raise ModelError(f"{asked} was asked for, but torch sees only {last}.")
        return device, "asked for"
    if device.type == "mps":
        if not torch.backends.mps.is_available():
            raise ModelError("mps was asked for, but torch does not offer it; use --device cpu.")
        return device, "asked for"
    raise OptionError(f"--device {asked} is not supported; use auto, cpu, cuda, cuda:N or mps.")


def _dtype(
    asked: Dtype, device: torch.device, family: Family, weight_bytes: int
) -> tuple[torch.dtype, str]:
    if asked != "auto":
        if asked not in DTYPES:
            names = ", ".join(DTYPES)
            raise OptionError(f"--dtype {asked} is not supported; use auto or one of {names}.")
        family.check_dtype(asked)
        if asked == "float16" and device.type == "cpu":
            raise OptionError(
                "--dtype float16 is slower than float32 on a CPU; "
                "use --dtype float32, or bfloat16 where the CPU has instructions for it."
            )
        return DTYPES[asked], "asked for"
    if device.type == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return torch.bfloat16, "the GPU computes in it"
        return torch.float32, "the GPU has no bfloat16"
    if device.type == "cpu":
        fast = cpu_bfloat16()
        if fast is None:
            return torch.float32, "the CPU has neither AMX nor AVX512-BF16"
        if weight_bytes < SMALL_WEIGHTS:
            return torch.float32, "quick enough for a model this small"
        gain = bfloat16_speedup()
        if gain < 1:
            return torch.float32, f"quicker here, although the CPU has {fast}"
        return torch.bfloat16, f"{gain:.1f} times as quick on this CPU, which has {fast}"
    return torch.float32, "exact everywhere"


def _quantized(asked: Quantize, device: torch.device, dtype: torch.dtype) -> str:
    """How quick products of eight-bit numbers are. Raises OptionError where there are none."""
    if asked not in QUANTIZERS:
        names = ", ".join(QUANTIZERS)
        raise OptionError(f"--quantize {asked} is not supported; use one of {names}.")
    if device.type == "cuda":
        quantizer = installed_quantizer(asked)
        if quantizer is None:
            packages = [each.package for each in QUANTIZERS[asked]]
            raise OptionError(
                f"--quantize {asked} on a GPU needs the package {' or '.join(packages)}: "
                f"pip install {packages[0]}, or leave --quantize out."
            )
        return f"by {quantizer.package}"
    if device.type != "cpu":
        raise OptionError(
            f"--quantize {asked} does not run on {device.type}; use --device cpu, or leave it out."
        )
    if asked != "int8":
        raise OptionError(
            f"--quantize {asked} is for GPUs: on a CPU four bits are slower than eight, and less "
            "exact; use --quantize int8."
        )
    from blip2cli.model.quantize.linear_int8 import int8_is_faster, max_exact_level

    exact = max_exact_level()
    if not exact:
        raise OptionError(
            "--quantize int8 needs a torch with oneDNN, and a processor that it multiplies "
            "eight-bit numbers on; leave it out."
        )
    if not int8_is_faster("vision_model.", dtype):
        return "but the vision encoder's, quicker as they are on AMX"
    if exact == 255:
        return "the CPU has instructions for them"
    return "slower than on a CPU with VNNI, and states are rounded to seven bits"


@cache
def bfloat16_speedup() -> float:
    """How many times as quick as in float32 a matrix product is in bfloat16 on this CPU.

    Instructions alone do not tell: a virtual machine may offer slow ones. A few milliseconds.
    """
    taken = []
    for dtype in (torch.float32, torch.bfloat16):
        rows, weight = torch.ones(64, 1024, dtype=dtype), torch.ones(1024, 1024, dtype=dtype)
        runs = []
        for _ in range(4):  # the first one makes ready
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
