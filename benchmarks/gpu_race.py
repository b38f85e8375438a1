"""Captions from JPEG files on one GPU, beside what people run today: see ``gpu.sh``.

The peers (see ``gpu_peers``) run one after the other, each in a process of its own, on the same
images with the same lengths. ``--device cpu --model tiny`` is a rehearsal. Results go to
``gpu-results.json`` and ``GPU-RESULTS.md`` in the folder ``--out``.
"""

from __future__ import annotations

import argparse
import datetime as dt
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from statistics import median
from typing import Any

import torch
from gpu_peers import first, missing
from machine import Machine
from work import Setting, Work, draw_images, draw_lengths

from blip2cli.system.cores import available_cores

HERE = Path(__file__).resolve().parent
BUILD = HERE.parent / "build" / "benchmarks"
PEERS = ("docs", "batched", "compiled", "vllm", "ours")
# Rows x inner x columns: the vision encoder's feed-forward at batch 256, a square one.
SHAPES = ((257 * 256, 1408, 6144), (8192, 8192, 8192), (4096, 4096, 4096))
SMALL = ((2056, 1408, 6144), (1024, 1024, 1024))  # for a rehearsal
READ = 1 << 30  # bytes


@dataclass
class Ran:
    """How one peer did; without ``seconds`` it did not run."""

    peer: str
    images: int
    seconds: list[float] = field(default_factory=list)
    answers: list[list[list[int]]] = field(default_factory=list)
    setting: dict[str, int] = field(default_factory=dict)
    tried: dict[str, float] = field(default_factory=dict)
    gpu_gib: float | None = None
    why: str | None = None  # it did not run

    @property
    def rate(self) -> float:
        """Images a second, the median over the rounds."""
        return self.images / median(self.seconds)


def limits(device: str, dtype: str) -> Machine:
    """The best matrix product and the reading of memory, measured on the device."""
    on_cuda = device != "cpu"
    seconds = 0.5 if on_cuda else 0.1

    def best(work: Callable[[], Any]) -> float:
        """Seconds of one, the quickest of as many fives as fit."""
        work()
        least, end = float("inf"), time.perf_counter() + seconds
        while time.perf_counter() < end:
            _wait(on_cuda)
            began = time.perf_counter()
            for _ in range(5):
                work()
            _wait(on_cuda)
            least = min(least, (time.perf_counter() - began) / 5)
        return least

    flops = 0.0
    for rows, inner, columns in SHAPES if on_cuda else SMALL:
        left = torch.randn(rows, inner, device=device, dtype=getattr(torch, dtype))
        right = torch.randn(columns, inner, device=device, dtype=getattr(torch, dtype))
        taken = best(lambda left=left, right=right: torch.nn.functional.linear(left, right))
        flops = max(flops, 2 * rows * inner * columns / taken)
    values = torch.ones((READ if on_cuda else READ // 8) // 4, device=device)
    bandwidth = values.nbytes / best(lambda: values.sum())
    name = torch.cuda.get_device_name(device) if on_cuda else "CPU (a rehearsal)"
    return Machine(name, available_cores(), {dtype: flops}, bandwidth)


def _wait(on_cuda: bool) -> None:
    if on_cuda:
        torch.cuda.synchronize()


def race(peer: str, path: Path, work: Work, options: argparse.Namespace) -> Ran:
    """Run one peer in a process of its own."""
    work = first(work, options.docs_images) if peer == "docs" else work
    images = len(work.files)
    why = missing(peer, options.device)
    if why is not None:
        return Ran(peer, images, why=why)
    request = {
        "peer": peer,
        "model": str(path),
        "device": options.device,
        "dtype": options.dtype,
        "work": work.as_json(),
        "settings": [asdict(setting) for setting in settings(peer, options)],
        "rounds": options.rounds,
        "try": min(images, 8 if peer == "docs" else options.tried),
    }
    with tempfile.TemporaryDirectory() as place:
        asked, answered = Path(place) / "request.json", Path(place) / "answer.json"
        asked.write_text(json.dumps(request), encoding="utf-8")
        done = subprocess.run([sys.executable, HERE / "gpu_peers.py", asked, answered], check=False)
        if not answered.exists():
            return Ran(peer, images, why=f"it ended with exit code {done.returncode}")
        return Ran(peer, images, **json.loads(answered.read_text(encoding="utf-8")))


def settings(peer: str, options: argparse.Namespace) -> list[Setting]:
    """What is tried: each batch size, with as many workers as there are cores to spare."""
    workers = options.workers
    if peer == "docs":
        return [Setting(1)]
    if peer == "vllm":
        return [Setting(0, workers)]
    if peer == "ours":
        return [Setting(options.ours, workers)]
    return [Setting(size, workers) for size in options.batches]


def agreement(one: Ran, other: Ran) -> tuple[float, float]:
    """Shares of the texts that both wrote: those that are equal, and tokens before they part."""
    texts = equal = tokens = same = 0
    for left, right in zip(one.answers, other.answers, strict=False):
        for a, b in zip(left, right, strict=True):
            until = next((i for i, (x, y) in enumerate(zip(a, b, strict=False)) if x != y), None)
            texts, equal = texts + 1, equal + (a == b)
            tokens += max(len(a), len(b))
            same += min(len(a), len(b)) if until is None else until
    return equal / max(1, texts), same / max(1, tokens)


def work_flops(path: Path, work: Work, ours: Ran, dtype: str, at_once: int) -> Any:
    """The parts of what ours did, see ``arithmetic``."""
    import arithmetic
    from transformers import Blip2Config

    config = Blip2Config.from_pretrained(path)
    lengths = tuple(tuple(map(len, image)) for image in ours.answers)
    texts = arithmetic.Texts((1,), lengths)
    images = len(work.files)
    return arithmetic.image_parts(config, images) + arithmetic.text_parts(
        config, dtype, images, at_once, texts
    )


def summarize(ran: Sequence[Ran], machine: Machine, parts: Any, dtype: str) -> dict[str, Any]:
    """Plain values of the whole race; ours is the last."""
    import arithmetic

    ours = ran[-1]
    flops = sum(part.flops for part in parts)
    seconds = median(ours.seconds)
    lines = []
    for its in ran:
        line: dict[str, Any] = {"peer": its.peer, "images": its.images, "skipped": its.why}
        if its.why is None:
            texts, tokens = agreement(its, ours)
            line |= {
                "images_per_second": its.rate,
                "ours_is_faster_by": ours.rate / its.rate,
                "setting": its.setting,
                "tried": its.tried,
                "gpu_gib": its.gpu_gib,
                "equal_texts": texts,
                "equal_tokens": tokens,
            }
        lines.append(line)
    return {
        "date": dt.datetime.now(dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "versions": {name: version(name) for name in ("torch", "transformers")},
        "machine": machine.as_json(),
        "dtype": dtype,
        "results": lines,
        "seconds": seconds,
        "share_of_peak": flops / seconds / machine.flops[dtype],
        "share_of_limit": arithmetic.limit(parts, machine, dtype) / seconds,
        "arithmetic": arithmetic.explain(parts, machine, dtype),
    }


def page(found: dict[str, Any]) -> str:
    """The results as a Markdown page."""
    machine = Machine(**found["machine"])
    versions = ", ".join(f"{name} {number}" for name, number in found["versions"].items())
    dtype = found["dtype"]
    measured = (
        f"{found['date']}; {machine.name}, {machine.cores} cores; matrix products in {dtype} "
        f"{machine.flops[dtype] / 1e12:.1f} TFLOP/s, memory {machine.bandwidth / 1e9:.0f} GB/s, "
        f"measured in the same run; {versions}."
    )
    lines = [
        "# Captions from JPEG files on one GPU",
        "",
        measured,
        "",
        "| peer | images | batch, workers | images/s | ours is | equal texts | equal tokens |",
        "|---|---|---|---|---|---|---|",
    ]
    for line in found["results"]:
        if line["skipped"]:
            lines.append(f"| {line['peer']} | – | {line['skipped']} | – | – | – | – |")
            continue
        batch = line["setting"]["batch_size"] or "its own choice"
        lines.append(
            f"| {line['peer']} | {line['images']} | {batch}, {line['setting']['workers']} "
            f"| {line['images_per_second']:.4g} | {line['ours_is_faster_by']:.2f}x "
            f"| {line['equal_texts']:.1%} | {line['equal_tokens']:.1%} |"
        )
    reached = (
        f"Ours reaches {found['share_of_peak']:.1%} of the measured peak of matrix products, and "
        f"{found['share_of_limit']:.1%} of the limit that products and the reading of weights set:"
    )
    lines += ["", reached, "", *(f"- {line}" for line in found["arithmetic"])]
    return "\n".join(lines) + "\n"


def arguments(words: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description="Race on a GPU against what people run today.")
    add = parser.add_argument
    add("--device", default="cuda")
    add("--model", default="full", help="tiny, mid-opt or full")
    add("--dtype", help="bfloat16; on a CPU float32")
    add("--images", type=int, default=4096)
    add("--docs-images", type=int, default=64, help="number of images for the peer docs")
    add("--tried", type=int, default=512, help="images that a setting is tried on")
    add("--rounds", type=int, default=3)
    add("--batches", type=int, nargs="+", default=[32, 64, 128, 256])
    add("--ours", type=int, default=0, help="our batch size; 0: its own choice")
    add("--workers", type=int, default=max(1, available_cores() - 1))
    add("--peers", nargs="+", default=list(PEERS[:-1]), choices=PEERS[:-1])
    add("--models", type=Path, default=BUILD, help="where models and images are kept")
    add("--out", type=Path, default=BUILD)
    options = parser.parse_args(words)
    options.dtype = options.dtype or ("float32" if options.device == "cpu" else "bfloat16")
    options.batches = sorted({min(size, options.images) for size in options.batches})
    return options


def main() -> int:
    """Run, print and write; 1 when ours did not run, or float32 texts differ."""
    from models import build

    options = arguments()
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    path = build(options.model, options.models)
    files = tuple(draw_images(options.models / "images", options.images))
    lengths = None if options.model == "tiny" else draw_lengths(options.images, 1)
    work = Work("caption", files, lengths=lengths)
    machine = limits(options.device, options.dtype)
    torch.cuda.empty_cache()
    ran = []
    for peer in [*options.peers, "ours"]:
        its = race(peer, path, work, options)
        print(f"{peer}: {its.why or f'{its.rate:.4g} images/s'}", file=sys.stderr, flush=True)
        ran.append(its)
    ours = ran[-1]
    if ours.why is not None:
        return 1
    machine = machine.better(limits(options.device, options.dtype))
    at_once = min(options.images, 64)
    parts = work_flops(path, work, ours, options.dtype, at_once)
    found = summarize(ran, machine, parts, options.dtype)
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "gpu-results.json").write_text(json.dumps(found, indent=1), encoding="utf-8")
    (options.out / "GPU-RESULTS.md").write_text(page(found), encoding="utf-8")
    print(page(found))
    shares = [line["equal_texts"] for line in found["results"] if not line["skipped"]]
    if options.dtype == "float32" and min(shares) < 1:
        print("The peers do not write the same in float32.", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
