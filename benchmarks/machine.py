"""What the machine can do at most, measured in the same run as what is compared with it."""

from __future__ import annotations

import os
import platform
import time
from dataclasses import dataclass
from pathlib import Path

import torch

from blip2cli.images.cores import available_cores

# Rows × inner × columns of products that BLIP-2 2.7b spends its time in: the vision encoder's
# feed-forward at batch 8, the language model's at the prefill of 16 images, a square one.
SHAPES = ((2056, 1408, 6144), (528, 2560, 10240), (2048, 2048, 2048))


@dataclass(frozen=True)
class Machine:
    """The limits of this machine."""

    name: str
    cores: int
    flops: dict[str, float]  # the best product's FLOP/s, by precision
    bandwidth: float  # bytes/s read from memory by all cores

    def __str__(self) -> str:
        products = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in self.flops.items())
        return (
            f"{self.name}, {self.cores} cores; matrix products in GFLOP/s: {products}; "
            f"memory {self.bandwidth / 1e9:.1f} GB/s"
        )


def measure(dtypes: tuple[str, ...] = ("float32", "bfloat16")) -> Machine:
    """Measure for about five seconds."""
    flops = {dtype: max(_product(shape, dtype) for shape in SHAPES) for dtype in dtypes}
    return Machine(_name(), available_cores(), flops, _bandwidth())


def _product(shape: tuple[int, int, int], dtype: str) -> float:
    rows, inner, columns = shape
    kind = getattr(torch, dtype)
    left = torch.randn(rows, inner).to(kind)
    right = torch.randn(columns, inner).to(kind)
    return 2 * rows * inner * columns / _best(lambda: torch.nn.functional.linear(left, right))


def _bandwidth() -> float:
    values = torch.ones(128 << 20)  # 512 MiB: far more than any cache
    return values.nbytes / _best(lambda: values.sum())


def _best(work: object, seconds: float = 0.8) -> float:
    """The quickest of as many runs as fit."""
    assert callable(work)
    work()
    best, end = float("inf"), time.perf_counter() + seconds
    while time.perf_counter() < end:
        began = time.perf_counter()
        work()
        best = min(best, time.perf_counter() - began)
    return best


def _name() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else f"{platform.machine()} ({os.cpu_count()} threads)"
