"""Side by side: this package and what people run today, on the same images, prompts and weights.

``python benchmarks/race.py [NAME…]`` runs the named races, or all of them (about an hour on two
cores); those whose peer is not installed are left out. What the peers say is compared before a time
is printed. Results are added to ``results.json``, and ``RESULTS.md`` is written from it.
``--images`` and ``--rounds`` try a race out on less; then nothing is recorded.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from pathlib import Path
from typing import Any

import arithmetic
from compare import DifferentError, compare
from machine import measure
from models import build
from races import RACES, Race
from results import Found, Line, median_ratio, record
from rounds import Ran, RefusedError, SkippedError, check, run
from shell import Shell
from startup import Startup
from work import Work

HERE = Path(__file__).resolve().parent
MODELS = HERE.parent / "build" / "benchmarks"


def race(name: str, plan: Race, models: Path) -> Found:
    """Run one race. Raises DifferentError when peers differ, RefusedError when one can't run,
    SkippedError when one is not installed."""
    check(plan)
    path = build(plan.model, models)
    work = plan.work(models)
    dtype = plan.peers[-1][1]
    rated = () if plan.kind == "pixels" else (dtype,)
    before = measure(rated)
    ran = run(plan, path, work)
    machine = before.better(measure(rated))
    notes = compare(plan.kind, path, work, ran)
    notes += [
        f"{peer} at batch size {', '.join(its.tried)} images/s when tried once"
        for peer, its in ran.items()
        if its.tried
    ]
    notes += [f"{peer} is {its.about}" for peer, its in ran.items() if its.about]
    ours = ran["ours"]
    lines = []
    for peer, its in ran.items():
        rate = 1 / statistics.median(its.per_image)
        ratio = median_ratio(its.per_image, ours.per_image)
        lines.append(Line(peer, its.dtype, _words(plan, its), len(its.numbers), rate, ratio))
    seconds = statistics.median(ours.seconds)
    found = Found(name, plan.workload, plan.rounds, lines, machine, dtype, None, seconds)
    found.notes = notes
    if plan.kind != "pixels":
        parts = _parts(plan, path, work, ours)
        found.limit_seconds = arithmetic.limit(parts, machine, dtype)
        found.arithmetic = arithmetic.explain(parts, machine, dtype)
    return found


def _words(plan: Race, its: Ran) -> str:
    workers = f", {its.setting.workers} worker" if its.setting.workers else ""
    batch = f"batch {its.setting.batch_size}" if its.setting.batch_size else "as it chooses"
    return f"{batch}{workers}"


def _parts(plan: Race, path: Path, work: Work, ours: Ran) -> list[arithmetic.Part]:
    """The arithmetic of what ours did."""
    from transformers import AutoConfig, AutoTokenizer

    config = AutoConfig.from_pretrained(path)
    words: tuple[int, ...] = ()
    if config.model_type == "instructblip":
        reader: Any = AutoTokenizer.from_pretrained(path / "qformer_tokenizer")
        words = tuple(len(reader(prompt)["input_ids"]) for prompt in work.prompts)
    parts = arithmetic.image_parts(config, plan.images, words)
    if plan.kind == "vision":
        return parts[:1]
    if plan.kind == "embed":
        return parts
    tokenizer: Any = AutoTokenizer.from_pretrained(path)
    asked = [tuple(tokenizer(p or "")["input_ids"]) for p in work.prompts]
    prompts = tuple(map(len, asked))
    distinct = {ids[:n] for ids in asked for n in range(1, len(ids) + 1)}
    repeated = 0 if words else sum(prompts) - len(distinct)
    choices = [tokenizer(" " + c, add_special_tokens=False)["input_ids"] for c in work.choices]
    lengths: tuple[tuple[int, ...], ...] = ()
    if not choices:
        lengths = tuple(tuple(map(len, image)) for image in ours.answers[0])
    sizes = tuple(map(len, choices))
    texts = arithmetic.Texts(prompts, lengths, work.num_beams, sizes, words, repeated)
    dtype = plan.peers[-1][1]
    return parts + arithmetic.text_parts(config, dtype, plan.images, plan.ours, texts)


def start_up(name: str, plan: Startup) -> Found:
    """Measure the start-up, which has no peers and no limit."""
    found = Found(name, "start-up", plan.runs, [], measure(()))
    found.notes = plan.lines()
    return found


ALL: dict[str, Race | Shell | Startup] = {
    "startup": Startup(),
    "shell-1000": Shell(1000),
    "shell-10000": Shell(10_000, rounds=2, every=10),
    **RACES,
}


def perform(name: str, options: argparse.Namespace) -> Found:
    """Run what has the name. Raises as ``race`` does."""
    plan = ALL[name].fewer(options.images, options.rounds)
    if isinstance(plan, Startup):
        return start_up(name, plan)
    if isinstance(plan, Shell):
        return plan.race(name, options.models)
    return race(name, plan, options.models)


def main() -> int:
    """Run and print; 1 when a race did not come to its end."""
    parser = argparse.ArgumentParser(description="Race against what people run today.")
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(ALL)}")
    parser.add_argument("--models", type=Path, default=MODELS, help="where random models are kept")
    parser.add_argument("--images", type=int, help="at most this many; nothing is recorded")
    parser.add_argument("--rounds", type=int, help="number of rounds; nothing is recorded")
    options = parser.parse_args()
    unknown = set(options.names) - set(ALL)
    if unknown:
        parser.error(f"there is no race {', '.join(sorted(unknown))}; choose of {', '.join(ALL)}")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TRANSFORMERS_VERBOSITY"] = "error"
    failed = False
    for name in options.names or ALL:
        try:
            found = perform(name, options)
        except SkippedError as error:
            print(f"{name}: left out. {error}", file=sys.stderr, flush=True)
            continue
        except (DifferentError, RefusedError) as error:
            print(f"{name}: {error} No time is printed.", file=sys.stderr, flush=True)
            failed = True
            continue
        print(found.show(), flush=True)
        if options.images is None and options.rounds is None:
            record(found, HERE)
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
