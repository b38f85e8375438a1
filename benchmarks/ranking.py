"""What ranking costs and gains: ``python -m benchmarks.ranking [--images 2000] [--rounds 7]``.

Draws scenes that training never drew, made hard (see ``hard_pictures``), and captions them with
``tiny``: greedily, by five beams, and five captions each of which the best is picked by
``tiny-itm``, whose vision encoder is that of ``tiny``. All ways take turns in one process, with the
models loaded once; a ratio is the median over rounds of two times of one round (and of two
processor times, for busy machines), decoding of the files included. Before a time is printed, the
ranked candidates have to be those that were not ranked. Beside it: CIDEr and the share of captions
that are right to the letter, each with its difference to greedy captions and a 95 % interval over
images; and what ``--min-match`` leaves of greedy captions.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.hard_pictures import harden
from blip2cli.evaluate.bootstrap import figures_with_intervals, paired_differences
from blip2cli.evaluate.evaluation import Figure
from blip2cli.evaluate.run import evaluate
from blip2cli.evaluate.statistics import mean_of
from blip2cli.model.checkpoint.ranker import RankerSpec
from blip2cli.model.load_ranked import load_ranked
from blip2cli.model.ranker import Ranker
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    DecodeOptions,
    EvalOptions,
    ModelOptions,
    OutputOptions,
    RankOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.tasks.caption import CaptionTask
from training.evaluate import HELD_OUT_SEED
from training.random_scenes import random_scene

MOST_OBJECTS = 4
RANKER = "tiny-itm"
BEAMS = DecodeOptions(num_beams=5)
SEVERAL = DecodeOptions(num_beams=5, num_captions=5)
DRAWN = DecodeOptions(temperature=1.0, num_captions=5)
MATCH, CONTRAST = RankOptions(RANKER), RankOptions(RANKER, "contrast")
WAYS = {
    "greedy": CaptionTask(),
    "… scored by match": CaptionTask(rank=MATCH),
    "five beams": CaptionTask(decode=BEAMS),
    "five beams, five captions": CaptionTask(decode=SEVERAL),
    "… ranked by contrast": CaptionTask(decode=SEVERAL, rank=CONTRAST),
    "… ranked by match": CaptionTask(decode=SEVERAL, rank=MATCH),
    "five drawn": CaptionTask(decode=DRAWN),
    "… drawn, ranked by match": CaptionTask(decode=DRAWN, rank=MATCH),
}
APART = "… ranked by match, two encoders"  # what two passes of the encoder would cost
LEAST = (0.5, 0.8, 0.95)  # of ``--min-match``


def draw(folder: Path, count: int) -> Path:
    """Draw ``count`` scenes into a folder; returns the table of their captions beside it."""
    folder.mkdir(parents=True)
    rng = np.random.default_rng(HELD_OUT_SEED)
    references = folder.with_name("references.jsonl")
    with references.open("w", encoding="utf-8") as file:
        for number in range(count):
            picture, scene = random_scene(rng)
            while len(scene.objects) > MOST_OBJECTS:
                picture, scene = random_scene(rng)
            name = f"{number:06d}.png"
            harden(rng, picture).save(folder / name)
            print(json.dumps({"file_name": name, "caption": scene.caption}), file=file)
    return references


def caption(model: Blip2, task: CaptionTask, images: Path, out: Path) -> tuple[float, float]:
    """Seconds that captions of a folder take with the model in memory, and of processor time."""
    options = RunOptions(
        SourceOptions((str(images),)), output=OutputOptions(str(out), overwrite=True)
    )
    began, used = time.perf_counter(), time.process_time()
    run(Job(ImageItems(), task, options, load=lambda given: model))
    return time.perf_counter() - began, time.process_time() - used


def rows(out: Path) -> list[dict[str, Any]]:
    """The rows of an output, in order."""
    return [json.loads(line) for line in out.read_text(encoding="utf-8").splitlines()]


def check_candidates(ranked: Path, plain: Path) -> None:
    """End the program where ranking changed more than the order."""
    for one, other in zip(rows(ranked), rows(plain), strict=True):
        each = [sorted((c["text"], c["logprob"]) for c in r["candidates"]) for r in (one, other)]
        if each[0] != each[1]:
            raise SystemExit(f"{one['file_name']} has other candidates when they are ranked")


def gains(out: Path, references: Path, before: Path) -> Iterator[str]:
    """CIDEr and exact captions, and their differences to the output ``before``."""
    options = EvalOptions(
        (str(out),), against=str(references), compare=(str(before),), metric=("cider",)
    )
    cider = evaluate(options)
    right = {row["file_name"]: row["caption"] for row in rows(references)}
    mine, theirs = ([mean_of("exact", exact(rows(each), right))] for each in (out, before))
    images = np.arange(len(right))
    figures = (*cider.figures, *(Figure(*each) for each in figures_with_intervals(mine, images)))
    differences = (
        *cider.differences,
        *(Figure(*each) for each in paired_differences(theirs, mine, images)),
    )
    for one, more in zip(figures, differences, strict=True):
        yield (
            f"{one.name} {one.value:.3f} ({one.low:.3f} to {one.high:.3f}), "
            f"{more.value:+.3f} ({more.low:+.3f} to {more.high:+.3f})"
        )


def exact(found: list[dict[str, Any]], right: dict[str, str]) -> NDArray[np.float64]:
    """1 for each caption that is right to the letter, else 0."""
    return np.array([row["caption"] == right[row["file_name"]] for row in found], np.float64)


def coverage(out: Path, references: Path) -> Iterator[str]:
    """What is left, and how much of it is right, where captions with a low match are kept back."""
    right = {row["file_name"]: row["caption"] for row in rows(references)}
    found = rows(out)
    scores = exact(found, right)
    matches = np.array([row["match"] for row in found])
    for least in LEAST:
        left = matches >= least
        share = float(scores[left].mean()) if left.any() else float("nan")
        yield f"at least {least}: {left.mean():.1%} of captions, {share:.1%} of them exact"


def main() -> None:
    """Draw, caption, compare and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    model = load_ranked(ModelOptions("tiny"), None, RankerSpec(RANKER))
    assert model.ranker is not None
    if not model.ranker.shares_vision:
        raise SystemExit("the two models have different vision encoders")
    apart = Blip2.load(ModelOptions("tiny"))
    apart.ranker = Ranker(Blip2.load(ModelOptions(RANKER)), shares_vision=False)
    ways = {name: (model, task) for name, task in WAYS.items()}
    ways[APART] = (apart, WAYS["… ranked by match"])
    with tempfile.TemporaryDirectory() as folder:
        images = Path(folder) / "images"
        references = draw(images, options.images)
        outs = {name: Path(folder) / f"{number}.jsonl" for number, name in enumerate(ways)}
        seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
        for number in range(options.rounds + 1):  # the first one warms up
            for name, (loaded, task) in ways.items():
                taken = caption(loaded, task, images, outs[name])
                if number:
                    seconds[name].append(taken)
        plain = outs["five beams, five captions"]
        for name in ("… ranked by contrast", "… ranked by match", APART):
            check_candidates(outs[name], plain)
        check_candidates(outs["… drawn, ranked by match"], outs["five drawn"])
        print(f"{options.images} hard scenes, {options.rounds} rounds: {model.reason}")
        greedy = seconds["greedy"]
        for name, times in seconds.items():
            wall, used = (
                statistics.median(a[n] / b[n] for a, b in zip(times, greedy, strict=True))
                for n in (0, 1)
            )
            each = 1000 * statistics.median(taken for taken, _ in times) / options.images
            print(f"{name}: {each:.2f} ms an image, {wall:.2f} times greedy (processor {used:.2f})")
            for line in gains(outs[name], references, outs["greedy"]):
                print(f"  {line}")
        print("greedy captions that fit:")
        for line in coverage(outs["… scored by match"], references):
            print(f"  {line}")


if __name__ == "__main__":
    main()
