"""A pretended GPU whose memory runs out anywhere: an image fails, or its rows are right.

``python -m tests.torture.gpu_memory --trials 30 --seed 7``; ``--only 17`` repeats one trial.
"""

from __future__ import annotations

import argparse
import gc
import random
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from blip2cli.api import Blip2
from blip2cli.api.batches import loaded_batches, references
from blip2cli.images.batch_stream import LoadedBatch
from blip2cli.options import DecodeOptions
from blip2cli.pipeline.out_of_memory import BatchHalving
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Task
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.questions import from_texts
from tests.model.device_tasks import IMAGES, QUESTIONS, TOLERANCE, difference
from tests.pretend import pretended, what_is_missing
from tests.torture.report import Report
from tests.workload import Violation

MODELS = ("tiny", "tiny-t5")
# Bytes beyond the model itself: a single image takes 2 MB, each further one 0.7.
LEAST, EACH = 800_000, 850_000
SHORT = DecodeOptions(max_new_tokens=5)
BEAMS = DecodeOptions(max_new_tokens=4, num_beams=3)


def tasks() -> list[Task]:
    """What is done in each round: texts of one length, of several lengths, and beams."""
    return [
        CaptionTask(decode=SHORT),
        AskTask(from_texts(QUESTIONS), decode=SHORT),
        CaptionTask(decode=BEAMS),
    ]


def load(name: str, device: str) -> Blip2:
    """An embedded model that takes all images as one batch."""
    return Blip2.load(name, device=device, dtype="float32", batch_size=len(IMAGES))


def as_one_batch(blip2: Blip2, images: int) -> LoadedBatch:
    """The first ``images`` of all."""
    (batch,) = loaded_batches(references(IMAGES[:images]), blip2.model.spec, len(IMAGES))
    return batch


@cache
def expected(name: str, images: int) -> list[list[dict[str, Any]]]:
    """The rows of each task on the CPU."""
    cpu = load(name, "cpu")
    batch = as_one_batch(cpu, images)
    return [[dict(row) for row in task.fit(cpu.model).rows(cpu.model, batch)] for task in tasks()]


def trial(seed: int, number: int, images: int = len(IMAGES), rounds: int = 3) -> int:
    """A model whose memory is short; returns how many images failed. Raises ``Violation``.

    The second round captures steps.
    """
    try:
        return _tried(seed, number, images, rounds)
    except Violation:
        raise
    except Exception as error:
        raise Violation(f"a run ends with {type(error).__name__}: {error}") from error


def _tried(seed: int, number: int, images: int, rounds: int) -> int:
    chance = random.Random(f"{seed}/{number}")
    name = MODELS[number % len(MODELS)]
    right = expected(name, images)
    failed = 0
    with pretended() as machine:
        gpu = load(name, "cuda")
        batch = as_one_batch(gpu, images)
        gc.collect()
        beyond = LEAST + int(chance.random() * EACH * images)
        machine.capacity = machine.allocated + beyond
        halving = [BatchHalving(task.fit(gpu.model)) for task in tasks()]
        for _ in range(rounds):
            for each, rows in zip(halving, right, strict=True):
                failed += check(each.process(gpu.model, batch), rows)
        machine.capacity = 80 << 30
        for task, rows in zip(tasks(), right, strict=True):
            if check(BatchHalving(task.fit(gpu.model)).process(gpu.model, batch), rows):
                raise Violation("an image fails although there is memory again")
        if machine.errors:
            raise Violation(machine.errors[0])
    return failed


def check(processed: Any, right: list[dict[str, Any]]) -> int:
    """Raise ``Violation`` unless each image has its rows or has failed; returns how many failed."""
    lost = {image.file_name for image in processed.images if image.error is not None}
    kept = [row for row in right if row["file_name"] not in lost]
    if difference([dict(row) for row in processed.rows], kept) > TOLERANCE:
        raise Violation(f"rows differ: {processed.rows} in place of {kept}")
    return len(lost)


def main() -> int:
    """Command line: returns 1 when any trial failed."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.gpu_memory")
    parser.add_argument("--trials", type=int, default=30)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="repeat one trial")
    options = parser.parse_args()
    if missing := what_is_missing():
        print(f"gpu_memory: not tried, {missing}")
        return 0
    report = Report("gpu_memory", Path(tempfile.gettempdir(), "torture-gpu-memory"))
    numbers = range(options.trials) if options.only is None else [options.only]
    again = f"python -m tests.torture.gpu_memory --seed {options.seed} --only"
    for number in numbers:
        with report.trial(str(number), report.kept / "none", f"{again} {number}"):
            report.notes["images failed"] += trial(options.seed, number)
            report.survive("trials")
    print(report.line())
    return 1 if report.failures else 0


if __name__ == "__main__":
    sys.exit(main())
