"""Several devices beside one: ``python benchmarks/devices.py [--model FOLDER] [--rounds N]``.

(a) Two workers with one thread each (``cpu,cpu``) beside one process with two threads, in turns, on
the same images with ``mid-opt`` (``python benchmarks/models.py``); outputs are compared.
(b) 1, 2, 4, 8 and 16 worker processes on as many pretended devices, whose model is a sleep of real
length: images a second after start-up, beside those of one.
(c) Rows a second that the main process brings into order and writes, beside workers that compute
nothing: captions into JSONL, vectors of 768 numbers into Parquet. By the clock, and by its own
processor time.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from pretended import PretendedItems, PretendedSpec
from work import draw_images

from blip2cli.options import LoaderOptions, ModelOptions, OutputOptions, RunOptions
from blip2cli.pipeline import run as pipeline_run
from blip2cli.pipeline.compute.processes import WorkerProcesses
from blip2cli.pipeline.job import Job
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.embed import EmbedTask

COMMAND = Path(sys.executable).with_name("blip2cli")
BATCH = 64
SECONDS = 0.5  # of a batch on a pretended device: 128 images a second
BATCHES = 40  # for each device


def labelled(source: Path, model: str, device: str, out: Path) -> float:
    """Caption ``source``; returns images a second after loading."""
    summary = out.with_suffix(".json")
    command = [COMMAND, "caption", source, "--model", model, "--device", device, "-o", out]
    command += ["--overwrite", "-q", "--summary", summary, "--max-new-tokens", "12"]
    subprocess.run(command, check=True)
    return float(json.loads(summary.read_text(encoding="utf-8"))["images_per_second"])


def race(model: str, images: int, rounds: int) -> None:
    """Two workers beside one process."""
    with tempfile.TemporaryDirectory() as folder:
        source = Path(folder, "images")
        draw_images(source, images, (320, 240))
        ratios = []
        for _ in range(rounds):
            one, two = (Path(folder, f"{name}.jsonl") for name in ("one", "two"))
            before = labelled(source, model, "cpu", one)
            after = labelled(source, model, "cpu,cpu", two)
            ratios.append(after / before)
            same = "equal" if one.read_bytes() == two.read_bytes() else "DIFFERENT"
            print(f"cpu {before:.2f}, cpu,cpu {after:.2f} images/s, {same} outputs", flush=True)
        print(f"cpu,cpu beside cpu: {statistics.median(ratios):.3f}")


def pretended(
    task: Any, devices: int, images: int, seconds: float, out: Path
) -> tuple[float, float]:
    """Run over images that lie nowhere; returns rows a second, by clock and processor time."""
    names = [f"cpu:{number}" for number in range(devices)]
    cpu = 0.0

    def who(job: Any, plan: Any, isolate: bool, on_event: Any) -> WorkerProcesses:
        nonlocal cpu
        options = job.options
        spec = PretendedSpec(options.model, options.loader, job.task, seconds=seconds)
        compute = WorkerProcesses(spec, names, plan.items, on_event, 600.0)
        load = compute.load

        def loaded() -> Any:
            nonlocal cpu
            ready = load()
            cpu = time.process_time()
            return ready

        compute.load = loaded  # type: ignore[method-assign]
        return compute

    pipeline_run.who_computes = who
    options = RunOptions(
        model=ModelOptions("tiny"),
        loader=LoaderOptions(batch_size=BATCH),
        output=OutputOptions(str(out), overwrite=True),
    )
    summary = pipeline_run.run(Job(PretendedItems(count=images), task, options))
    used = time.process_time() - cpu
    return summary.images_per_second, summary.done / used


def scaling(most: int) -> None:
    """As many workers as pretended devices."""
    with tempfile.TemporaryDirectory() as folder:
        one = 0.0
        for devices in (n for n in (1, 2, 4, 8, 16) if n <= most):
            images = BATCH * BATCHES * devices
            out = Path(folder, "out.jsonl")
            rate, _ = pretended(CaptionTask(), devices, images, SECONDS, out)
            one = one or rate
            print(f"{devices} devices: {rate:.1f} images/s, {rate / one:.2f} times one", flush=True)


def writing(captions: int, vectors: int) -> None:
    """The main process beside workers that compute nothing."""
    with tempfile.TemporaryDirectory() as folder:
        for what, task, count, suffix in (
            ("captions into JSONL", CaptionTask(), captions, ".jsonl"),
            ("captions into Parquet", CaptionTask(), captions, ".parquet"),
            ("vectors of 768 into Parquet", EmbedTask(), vectors, ".parquet"),
        ):
            rate, busy = pretended(task, 2, count, 0.0, Path(folder, f"out{suffix}"))
            print(
                f"{what}: {rate:.0f} rows/s, {busy:.0f} a second of its processor time", flush=True
            )


def main() -> None:
    """Print what was measured."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--model", help="mid-opt's folder; without it (a) is left out")
    parser.add_argument("--images", type=int, default=256, help="of (a)")
    parser.add_argument("--rounds", type=int, default=5, help="of (a)")
    parser.add_argument("--most", type=int, default=16, help="pretended devices of (b)")
    parser.add_argument("--captions", type=int, default=200_000, help="of (c)")
    parser.add_argument("--vectors", type=int, default=20_000, help="of (c)")
    options = parser.parse_args()
    os.environ.pop("OMP_NUM_THREADS", None)
    if options.model:
        race(options.model, options.images, options.rounds)
    scaling(options.most)
    writing(options.captions, options.vectors)


if __name__ == "__main__":
    main()
