"""A model of what captions cost on GPUs, to be set against real figures.

``python benchmarks/gpu_model.py`` prints captions from JPEG files a second with blip2-opt-2.7b for
each GPU of ``gpu_rates``: by the kernels of this checkout (``gpu_counts``), before the work on
them, and at most. No GPU is needed, and nothing of it is measured: what kernels reach is assumed,
and named there.

``python benchmarks/gpu_model.py --measured gpu-results.json`` sets the model against what
``benchmarks/gpu.sh`` has measured: with the rates of the table, and with those of that very GPU. It
runs on another machine, as a GPU is pretended only where there is none.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import arithmetic
import gpu_counts
import gpu_rates
from gpu_counts import Counts, Kernel, Segment
from gpu_rates import GPUS, Gpu
from machine import Machine
from work import draw_lengths

# Images a second by this model of commit 84eb091, its kernels counted as here, with 30 ms for the
# hand-over of 256 images, as measured (20 to 39). On a T4 it chose float32, which does not fit.
BEFORE = {"H200": 421.0, "H100": 371.0, "A100": 173.0, "L4": 35.0}
HAND_OVER = 0.0  # seconds a batch that the device stands still for it: the next one is there
IMAGES = 4096  # of which the least work is counted


@dataclass(frozen=True)
class Modelled:
    """A batch of captions on one GPU, by the model."""

    gpu: Gpu
    counts: Counts
    seconds: dict[str, float]  # by segment
    most: float  # images/s, were every product the best one and nothing else took time
    flops: float  # an image, at least

    @property
    def rate(self) -> float:
        """Images a second."""
        decoded = gpu_rates.DECODED * max(1, self.gpu.cores - 1)
        return min(decoded, self.counts.batch / sum(self.seconds.values()))

    @property
    def share(self) -> float:
        """Of the best products."""
        return self.rate * self.flops / self.gpu.products


def kernel_seconds(kernel: Kernel, gpu: Gpu) -> float:
    """The time of one kernel: of its products or of its bytes, whichever takes longer."""
    attends = kernel.name == "scaled_dot_product_attention"
    product = gpu_rates.ATTENTION_SHARE if attends else gpu_rates.PRODUCT_SHARE
    memory = gpu_rates.READING_SHARE if kernel.flops else gpu_rates.COPYING_SHARE
    return max(
        kernel.flops / (product * gpu.products),
        kernel.bytes / (memory * gpu.bandwidth),
        gpu_rates.SHORTEST,
    )


def segment_seconds(name: str, segment: Segment, gpu: Gpu) -> float:
    """The time of a segment, all its times: of the device, or of the host that launches it.

    Steps are launched as graphs. What lies between them (``rest``) is launched while they run.
    """
    device = sum(n * kernel_seconds(kernel, gpu) for kernel, n in segment.kernels.items())
    host = sum(segment.kernels.values()) * gpu_rates.LAUNCH
    by_itself = name == "rest" or name.startswith("step")
    each = device if by_itself else max(device, host)
    return segment.times * each + segment.waits * gpu_rates.WAIT


def model(gpu: Gpu, counts: Counts, hand_over: float = HAND_OVER) -> Modelled:
    """What a batch takes by its kernels, its waits, and the hand-over of its images."""
    seconds = {
        name: segment_seconds(name, segment, gpu) for name, segment in counts.segments.items()
    }
    machine = Machine(gpu.name, gpu.cores, {gpu.dtype: gpu.products}, gpu.bandwidth)
    parts = _least_work(gpu.dtype, counts.slots)
    return Modelled(
        gpu,
        counts,
        seconds | {"hand-over": hand_over},
        IMAGES / arithmetic.limit(parts, machine, gpu.dtype),
        sum(part.flops for part in parts) / IMAGES,
    )


def _least_work(dtype: str, slots: int) -> Any:
    from transformers import Blip2Config

    config = Blip2Config(**gpu_counts.PUBLISHED)
    texts = arithmetic.Texts((1,), draw_lengths(IMAGES, 1))
    # T4's float16 has as many bytes as bfloat16.
    dtype = "bfloat16" if dtype == "float16" else dtype
    return arithmetic.image_parts(config, IMAGES) + arithmetic.text_parts(
        config, dtype, IMAGES, slots, texts
    )


def table(found: Sequence[Modelled]) -> list[str]:
    """The GPUs as a Markdown table."""
    lines = [
        "| GPU | precision | batch, slots | memory | before | now | ceiling | of best products |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for its in found:
        before = BEFORE.get(its.gpu.name)
        earlier = before * its.flops / its.gpu.products if before else None
        lines.append(
            f"| {its.gpu.name} | {its.gpu.dtype} | {its.counts.batch}, {its.counts.slots} "
            f"| {its.counts.gigabytes:.0f} of {its.gpu.gigabytes:.0f} GB "
            f"| {f'{before:.0f}' if before else '–'} | {its.rate:.0f} | {its.most:.0f} "
            f"| {f'{earlier:.0%} → ' if earlier else ''}{its.share:.0%} |"
        )
    return lines


def explain(its: Modelled) -> list[str]:
    """The time of a batch by what it is spent for."""
    lines = [f"A batch of {its.counts.batch} on {its.gpu.name}:"]
    for name, seconds in sorted(its.seconds.items(), key=lambda pair: -pair[1]):
        segment = its.counts.segments.get(name, Segment())
        times = f"{segment.times} x " if segment.times > 1 else ""
        kernels = sum(segment.kernels.values())
        lines.append(
            f"- {name}: {seconds * 1e3:.1f} ms ({times}{kernels} kernels, {segment.waits} waits)"
        )
    return lines


def compare(measured: dict[str, Any]) -> list[str]:
    """What ``gpu.sh`` measured, beside what the model says for that GPU."""
    name, dtype = measured["machine"]["name"], measured["dtype"]
    gpu = next((each for each in GPUS if each.name in name), None)
    ours = next(line for line in measured["results"] if line["peer"] == "ours")
    if gpu is None:
        raise SystemExit(f"{name}: of this GPU no rates are known; add them to gpu_rates.py")
    gpu = replace(gpu, dtype=dtype, cores=measured["machine"]["cores"])
    counts = gpu_counts.count(gpu)
    own = replace(
        gpu,
        products=measured["machine"]["flops"][dtype],
        bandwidth=measured["machine"]["bandwidth"],
    )
    by_table, by_own = model(gpu, counts), model(own, counts)
    rate = ours["images_per_second"]
    lines = [
        f"| {name} | images/s | share of the best products | measured / modelled |",
        "|---|---|---|---|",
        f"| measured | {rate:.4g} | {measured['share_of_peak']:.1%} | |",
    ]
    for label, its in (("rates of the table", by_table), ("rates measured there", by_own)):
        ratio = rate / its.rate
        lines.append(f"| model, {label} | {its.rate:.4g} | {its.share:.1%} | {ratio:.2f} |")
    return [*lines, "", *explain(by_own)]


def main(words: Sequence[str] | None = None) -> int:
    """Print the table, or the comparison."""
    parser = argparse.ArgumentParser(description="Model captions on GPUs.")
    parser.add_argument("--gpus", nargs="+", default=[gpu.name for gpu in GPUS])
    parser.add_argument("--measured", type=Path, help="gpu-results.json of benchmarks/gpu.sh")
    options = parser.parse_args(words)
    missing = gpu_counts.pretend.what_is_missing()
    if missing is not None:
        raise SystemExit(f"Kernels are counted where no GPU is, on a pretended one: {missing}")
    if options.measured is not None:
        lines = compare(json.loads(options.measured.read_text(encoding="utf-8")))
    else:
        found = [model(gpu, gpu_counts.count(gpu)) for gpu in GPUS if gpu.name in options.gpus]
        lines = [*table(found), *(line for its in found for line in ("", *explain(its)))]
    print("\n".join(lines))
    return 0


if __name__ == "__main__":
    sys.exit(main())
