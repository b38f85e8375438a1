"""What GPUs reach, by whom it was measured, and what kernels reach of it.

Peaks of data sheets are not reached by any product: cards with little power run at lower clocks.
``products`` are the best large products that somebody measured:

* H200, H100, A100: table of maximum achievable products in bfloat16 of
  https://github.com/stas00/ml-engineering, ``compute/accelerator`` (data sheets: 989, 989, 312)
* L4: products of 8192 x 8192 in bfloat16,
  https://github.com/zzc0721/torch-performance-test-data/issues/120 (data sheet: 121)
* T4: products of 4096 x 4096 in float16 as long as they last,
  https://forums.developer.nvidia.com/t/about-gpu-peak-performance/264462 (data sheet: 65)

``bandwidth`` is that of the data sheet, of which kernels reach a part; T4: as Jia et al. measured
(https://arxiv.org/abs/1903.07486; data sheet: 320). ``gigabytes`` are those of the data sheet.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Gpu:
    """A GPU, and the host that usually goes with it."""

    name: str
    products: float  # operations/s of the best large products in ``dtype``
    bandwidth: float  # bytes/s of its memory
    gigabytes: float
    cores: int  # of the host, for each GPU
    dtype: str = "bfloat16"
    capability: tuple[int, int] = (9, 0)


GPUS = (
    Gpu("H200", 794.5e12, 4.8e12, 141, 16),
    Gpu("H100", 792.1e12, 3.35e12, 80, 16),
    Gpu("A100", 267.9e12, 2.039e12, 80, 12, capability=(8, 0)),
    Gpu("L4", 59.4e12, 0.3e12, 24, 8, capability=(8, 9)),
    Gpu("T4", 24e12, 0.22e12, 16, 2, "float16", (7, 5)),
)

# What kernels of such shapes reach of these, not measured yet: the first figures to be set right.
PRODUCT_SHARE = 0.72  # products of the model's shapes, of the best ones
ATTENTION_SHARE = 0.35  # fused attention, of the best products
READING_SHARE = 0.60  # attention and products that wait for memory, of the bandwidth
COPYING_SHARE = 0.75  # kernels without products, of the bandwidth
SHORTEST = 2e-6  # seconds of a kernel, with the gap behind it, in a graph or out of it
LAUNCH = 6e-6  # seconds of the host for a kernel that it launches by itself
WAIT = 60e-6  # seconds that the device stands still when the host has waited for it
# Images that a core decodes in a second: ``preprocess-640`` in RESULTS.md.
DECODED = 356.0
