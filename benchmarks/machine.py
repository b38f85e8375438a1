"""What the machine can do at most, measured in the same run as what is compared with it."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch.nn.functional import linear

from blip2cli.model.placement.dtype import cpu_bfloat16
from blip2cli.system.cores import available_cores

# Rows x inner x columns of products that BLIP-2 2.7b spends its time in: the vision encoder's
# feed-forward at batch 8, the language model's at the prefill of 16 images; and square ones.
SHAPES = (
    (2056, 1408, 6144),
    (2056, 6144, 1408),
    (528, 2560, 10240),
    (1024, 1024, 1024),
    (2048, 2048, 2048),
)
BYTES = {"float32": 4, "bfloat16": 2, "int8": 1}


@dataclass(frozen=True)
class Machine:
    """The limits of this machine."""

    name: str
    cores: int
    flops: dict[str, float]  # the best product's operations/s, by precision
    bandwidth: float  # bytes/s read from memory by all cores

    def __str__(self) -> str:
        products = ", ".join(f"{name} {rate / 1e9:.0f}" for name, rate in self.flops.items())
        products = products and f"matrix products in GFLOP/s: {products}; "
        return f"{self.name}, {self.cores} cores; {products}memory {self.bandwidth / 1e9:.1f} GB/s"

    def better(self, other: Machine) -> Machine:
        """The best of two measurements: a limit is what was reached at any time."""
        names = self.flops | other.flops
        flops = {n: max(self.flops.get(n, 0), other.flops.get(n, 0)) for n in names}
        return Machine(self.name, self.cores, flops, max(self.bandwidth, other.bandwidth))

    def as_json(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def measure(dtypes: tuple[str, ...] = ("float32", "bfloat16"), seconds: float = 0.25) -> Machine:
    """Measure each product and reading for so long: 3 seconds a precision in all."""
    flops = {}
    for dtype in dtypes:
        rates = []
        for rows, inner, columns in SHAPES:
            work = 2 * rows * inner * columns
            rates += [
                work / _best(each, seconds) for each in _products(rows, inner, columns, dtype)
            ]
        flops[dtype] = max(rates)
    return Machine(_name(), available_cores(), flops, _bandwidth(seconds))


def _products(rows: int, inner: int, columns: int, dtype: str) -> Iterator[Callable[[], Any]]:
    """Ways to multiply [rows, inner] with a weight [columns, inner]."""
    if dtype == "int8":
        left = torch.randint(-127, 128, (rows, inner), dtype=torch.int8)
        right = torch.randint(-127, 128, (columns, inner), dtype=torch.int8)
        yield lambda: torch._int_mm(left, right.t())
        transposed = right.t().contiguous()
        yield lambda: torch._int_mm(left, transposed)
        return
    kind = getattr(torch, dtype)
    x, weight = torch.randn(rows, inner).to(kind), torch.randn(columns, inner).to(kind)
    yield lambda: linear(x, weight)
    if torch.backends.mkldnn.is_available():
        # The weight in the order that oneDNN's kernels want, as a compiler would lay it out.
        packed = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
        pointwise = torch.ops.mkldnn._linear_pointwise
        yield lambda: pointwise(x, packed, None, "none", [], "")


def _bandwidth(seconds: float) -> float:
    """Reading 512 MiB, far more than any cache: their sum, and their product with a vector."""
    values = torch.ones(128 << 20)
    matrix, vector = values.view(-1, 4096), torch.ones(4096)
    best = min(_best(lambda: values.sum(), seconds), _best(lambda: matrix @ vector, seconds))
    return values.nbytes / best


def _best(work: Callable[[], Any], seconds: float) -> float:
    """The quickest of as many runs as fit."""
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
    name = names[0] if names else f"{platform.machine()} ({os.cpu_count()} threads)"
    fast = cpu_bfloat16()  # a processor's name in a virtual machine may be that of many
    return f"{name} with {fast}" if fast else name
