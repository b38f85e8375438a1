"""What Ray costs beside one process, and what the driver takes in: ``ray_overhead.py``.

``slope``: seconds, and seconds of all processors, for each image between N and 4 N images, by
actors of a Ray cluster of this machine and by one process with as many threads in all; start-up
falls out.
``driver``: rows a second, processor time and peak memory of the driver when replicas take no time
(fake references).
"""

from __future__ import annotations

import argparse
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from work import draw_images

from blip2cli.images.load_image import LoadedImage
from blip2cli.options import LoaderOptions, ModelOptions, RayOptions
from blip2cli.pipeline.compute.base import Ready
from blip2cli.pipeline.compute.ray_actors import RayActors
from blip2cli.pipeline.compute.replica import ReplicaSpec
from blip2cli.pipeline.processed_batch import ProcessedBatch
from blip2cli.sources.base import ImageRef
from blip2cli.tasks.caption import CaptionTask

COMMAND = Path(sys.executable).with_name("blip2cli")


@dataclass(frozen=True)
class FakeSpec(ReplicaSpec):
    """Its replicas make rows of nothing."""

    def start(self) -> Any:
        return FakeReplica(self)


class FakeReplica:
    """Rows that say nothing, at once."""

    def __init__(self, spec: FakeSpec) -> None:
        self.ready = Ready(spec.task, "fake", "cpu", "float32", "because", batch_size=64)

    def process(self, refs: list[ImageRef], isolate: bool = False) -> ProcessedBatch:
        rows = [{"file_name": r.file_name, "caption": "a red circle above a square"} for r in refs]
        images = [LoadedImage(r.file_name, 640, 480, None, r.carried) for r in refs]
        return ProcessedBatch(list(rows), len(rows), images)


def fake_references(count: int) -> Iterator[ImageRef]:
    """References to images that do not exist."""
    for number in range(count):
        name = f"train/{number // 10_000:05d}/{number:012d}.jpg"
        yield ImageRef(name, f"/nowhere/{name}")


def driver(count: int, actors: int) -> None:
    """Print rows a second and the memory of this process, a line for each tenth."""
    spec = FakeSpec(ModelOptions("fake"), LoaderOptions(), CaptionTask())
    options = RayOptions(ray=True, ray_actors=(actors, actors))
    done = 0
    with RayActors(spec, options, fake_references(count), (), lambda event: None, 600) as compute:
        compute.start()
        compute.load()
        began, used = time.perf_counter(), time.process_time()
        batch = compute.next_batch()
        while batch is not None:
            compute.put(batch)
            while (rows := compute.take(False)) is not None:
                before, done = done, done + rows.done
                if before * 10 // count != done * 10 // count:
                    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
                    rate = done / (time.perf_counter() - began)
                    each = (time.process_time() - used) / done
                    print(
                        f"driver: {done} rows, {rate:.0f} rows/s, {1e6 * each:.1f} us of processor "
                        f"time a row, peak {peak} MiB",
                        flush=True,
                    )
            batch = compute.next_batch()
        while (rows := compute.take(True)) is not None:
            done += rows.done
    assert done == count


class Timed:
    """What a command takes: seconds, and those of the processors for it and all it starts."""

    def __init__(self, arguments: list[str], threads: int) -> None:
        self._used: dict[str, float] = {}  # by process
        began = time.perf_counter()
        environment = os.environ | {"OMP_NUM_THREADS": str(threads), "RAY_ADDRESS": "local"}
        child = subprocess.Popen([COMMAND, *arguments], env=environment, start_new_session=True)
        while child.poll() is None:
            self._look(child.pid)
            time.sleep(0.1)
        self.seconds = time.perf_counter() - began
        self.processor = sum(self._used.values())
        assert child.returncode == 0

    def _look(self, session: int) -> None:
        for entry in filter(str.isdecimal, os.listdir("/proc")):
            try:
                stat = Path(f"/proc/{entry}/stat").read_text()
            except OSError:
                continue
            fields = stat.rpartition(")")[2].split()
            if int(fields[3]) == session:
                ticks = int(fields[11]) + int(fields[12])
                self._used[f"{entry} {fields[19]}"] = ticks / os.sysconf("SC_CLK_TCK")


def slope(model: str, count: int, actors: int) -> None:
    """Print seconds for each further image, with Ray and without, and their ratio."""
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        draw_images(images, 4 * count, (320, 240))
        took = {}
        for kind in ("one", "ray"):
            ray = ["--ray", "--ray-actors", str(actors), "--dtype", "float32"]
            more = ray if kind == "ray" else ["--dtype", "float32"]
            for limit in (count, 4 * count):
                out = f"{folder}/{kind}-{limit}.jsonl"
                run = ["caption", str(images), "--model", model, "--limit", str(limit), "-q"]
                threads = actors if kind == "one" else 1
                took[kind, limit] = now = Timed([*run, "-o", out, *more], threads)
                both = f"{now.seconds:.1f} s, {now.processor:.1f} s of processors"
                print(f"{model}, {kind}, {limit} images: {both}", flush=True)
        same = all(
            Path(f"{folder}/one-{n}.jsonl").read_bytes()
            == Path(f"{folder}/ray-{n}.jsonl").read_bytes()
            for n in (count, 4 * count)
        )
        print(f"{model}: equal bytes: {same}")
        for what in ("seconds", "processor"):
            one, ray_ = (
                getattr(took[kind, 4 * count], what) - getattr(took[kind, count], what)
                for kind in ("one", "ray")
            )
            print(f"{model}: {what} for a further image with Ray: {ray_ / one - 1:+.1%}")


def main() -> None:
    """Print what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("what", choices=["slope", "driver"])
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--images", type=int, help="5,000 for slope, 1,000,000 for driver")
    parser.add_argument("--actors", type=int, default=2)
    options = parser.parse_args()
    if options.what == "slope":
        slope(options.model, options.images or 5000, options.actors)
    else:
        driver(options.images or 1_000_000, options.actors)


if __name__ == "__main__":
    main()
