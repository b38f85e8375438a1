"""CUDA devices as torch sees them, and why it can use none of those that are there."""

from __future__ import annotations

import re
import warnings
from contextlib import nullcontext

import torch

from blip2cli.errors import ModelError, option
from blip2cli.system.memory import is_exhaustion

REMEDY = "update its driver, or install a torch that was built for it"
# torch answers that there is no device, and says why in a warning: once a process.
_WARNING = re.compile(r"CUDA initialization: (?P<text>.*)", re.DOTALL)
_DRIVER_ERROR = re.compile(r"Error \d+: (.+?)(?: \(Triggered|$)", re.DOTALL)
_reasons: list[str] = []


def cuda_available() -> bool:
    """Whether torch can use a CUDA device; where it cannot, ``cuda_trouble`` may say why."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        available = torch.cuda.is_available()
    found = (_WARNING.match(str(warning.message)) for warning in caught)
    _reasons.extend(_reason(match["text"]) for match in found if match)
    return available


def cuda_count() -> int:
    """The number of CUDA devices that torch can use."""
    return torch.cuda.device_count() if cuda_available() else 0


def cuda_trouble() -> str | None:
    """Why torch cannot use a GPU that is there, such as a driver that is too old for it; None: it
    can, or there is none."""
    return None if cuda_available() or not _reasons else _reasons[-1]


def no_cuda(name: str) -> ModelError:
    """The error for a CUDA device that was asked for by ``name`` where torch has none."""
    trouble, on_cpu = cuda_trouble(), f"use {option('device')} cpu"
    if trouble is None:
        return ModelError("device", f"{name} was asked for, but torch sees no GPU", on_cpu)
    problem = f"{name} was asked for, but torch cannot use the GPU: {trouble}"
    return ModelError("device", problem, f"{REMEDY}, or {on_cpu}")


def has_bfloat16(device: torch.device) -> bool:
    """Whether the CUDA device computes in bfloat16 itself, and no emulation does."""
    try:
        # torch asks the current device.
        with nullcontext() if device.index is None else torch.cuda.device(device):
            return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    except RuntimeError as error:
        if not is_exhaustion(error):
            raise
        return True  # a device so full holds no model: loading one says that


def _reason(text: str) -> str:
    """The driver's error in what torch says, else the first sentence of it."""
    error = _DRIVER_ERROR.search(text)
    reason = error[1] if error else re.split(r"\.(?:\s|$)", text)[0]
    reason = " ".join(reason.split())
    return reason[:1].lower() + reason[1:] if reason.startswith("The ") else reason
