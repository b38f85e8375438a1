"""How long billions of images take on GPUs that fail: ``benchmarks/schedule_simulation.py``.

A simulation of the schedule of a run, not of any hardware: batches go to GPUs, rows come back in
order to one process, which writes them. GPUs of a machine fail together, at the rates that were
published, and are back after a while. A run is limited by what one process can write; several runs
(shares) are simulated by dividing images and GPUs. All rates are options: put in your own.
"""

from __future__ import annotations

import argparse
import heapq
import random
from dataclasses import dataclass


@dataclass(frozen=True)
class Rates:
    """What is known of one run."""

    gpus: int
    images_per_second: float  # of one GPU
    rows_per_second: float  # that the writing process handles
    batch: int  # images
    window: int  # batches under way for each GPU
    node_gpus: int  # that fail together
    node_hours: float  # mean time of a machine between failures
    repair_seconds: float  # until its GPUs work again, model loaded
    notice_seconds: float  # until its batches are given to others


def simulate(rates: Rates, images: int, rng: random.Random) -> tuple[float, int, float]:
    """Seconds for ``images``, failures of machines, and the share of GPU time that did no rows."""
    batches = -(-images // rates.batch)
    step = rates.batch / rates.images_per_second
    machines = -(-rates.gpus // rates.node_gpus)
    fails = [rng.expovariate(1 / (rates.node_hours * 3600)) for _ in range(machines)]
    free = [(0.0, gpu) for gpu in range(rates.gpus)]  # when each GPU can take a batch
    heapq.heapify(free)
    written: list[float] = []  # when the rows of each batch were, in order
    failures, busy, last = 0, 0.0, 0.0
    for number in range(batches):
        now, gpu = heapq.heappop(free)
        earlier = number - rates.window * rates.gpus
        if earlier >= 0:  # the window is full until that one is written
            now = max(now, written[earlier])
        machine = gpu // rates.node_gpus
        end = now + step * rng.uniform(0.9, 1.1)
        again = end
        while fails[machine] < now:  # it failed while this GPU waited
            fails[machine] += rng.expovariate(1 / (rates.node_hours * 3600))
        if fails[machine] < end:
            failures += 1
            again = fails[machine] + rates.repair_seconds
            end = fails[machine] + rates.notice_seconds + step  # done by another GPU
        busy += step
        heapq.heappush(free, (again, gpu))
        last = max(last + rates.batch / rates.rows_per_second, end)
        written.append(last)
    return last, failures, 1 - busy / (last * rates.gpus)


def main() -> None:
    """Print a line for each number of GPUs."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=float, default=2e9)
    parser.add_argument("--gpus", type=int, nargs="+", default=[8, 64, 256, 1024])
    parser.add_argument("--images-per-second", type=float, default=100.0, help="of one GPU")
    parser.add_argument("--rows-per-second", type=float, default=20_000.0, help="of one process")
    parser.add_argument("--node-hours", type=float, default=6_300.0, help="between failures")
    parser.add_argument("--repair-seconds", type=float, default=600.0)
    parser.add_argument("--dollars", type=float, default=2.5, help="for an hour of one GPU")
    parser.add_argument("--batch", type=int, default=64)
    options = parser.parse_args()
    for gpus in options.gpus:
        rates = Rates(
            gpus,
            options.images_per_second,
            options.rows_per_second,
            options.batch,
            4,
            8,
            options.node_hours,
            options.repair_seconds,
            30.0,
        )
        images = int(min(options.images, gpus * 2e5))  # a part; the rest goes on like it
        seconds, failures, idle = simulate(rates, images, random.Random(1))
        whole = seconds * options.images / images
        print(
            f"{gpus:5} GPUs: {images / seconds:9,.0f} images/s, {whole / 86400:7.1f} days, "
            f"{failures * options.images / images:6.0f} failures of machines, "
            f"{idle:6.1%} of GPU time idle, {whole / 3600 * gpus * options.dollars:12,.0f} dollars"
        )


if __name__ == "__main__":
    main()
