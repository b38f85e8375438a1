"""Whether confidence holds what it says: ``python benchmarks/calibration.py [MODEL ...]``.

Asks the embedded models about hard pictures (``hard_pictures``): scenes that training never draws
and the test split of easy-VQA, answers chosen and answers written. Prints, for each set of answers,
accuracy, expected calibration error before and after on folds held out, and of many draws of a
quarter of the pictures as labelled ones in how many the answers about the others that are sure
enough for ``--min-precision 0.95`` had that precision. ``--diagram FILE`` draws the reliability.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.hard_pictures import write_scenes, write_shapes
from benchmarks.reliability_diagram import diagram
from blip2cli.cli.app import call
from blip2cli.errors import OptionError
from blip2cli.evaluate.calibration.curves import log_odds, values_of
from blip2cli.evaluate.calibration.labelled import ASKED, Labelled, read_labelled
from blip2cli.evaluate.calibration.measures import reliability
from blip2cli.evaluate.calibration.run import fit
from blip2cli.evaluate.match_rows import RowMatcher
from blip2cli.evaluate.read_references import read_references
from blip2cli.evaluate.read_rows import Table
from blip2cli.options import ColumnOptions
from blip2cli.tasks.precision import lowest_confidence

PRECISION = 0.95
LARGEST_ERROR = 0.03  # of calibration
LABELLED = 4  # one of this number of pictures, in a draw
ENOUGH_ROWS, ENOUGH_ANSWERS, ENOUGH_DRAWS = 10_000, 2_000, 90


@dataclass(frozen=True)
class Draws:
    """What came of many draws of labels."""

    held: int  # draws whose answers had the precision
    refused: int  # draws whose labels showed no such confidence
    lowest: float  # precision
    fewest: int  # answers
    coverage: float  # mean share of unseen questions that were answered
    ece: float  # mean, of unseen answers


def answers(folder: Path, table: Path, model: str, closed: bool) -> Labelled:
    """Ask about all pictures of a folder, and read the rows with their labels."""
    out = folder / f"{model}-{'chosen' if closed else 'written'}.jsonl"
    if not closed:
        lines = [json.loads(line) for line in table.read_text().splitlines()]
        table = folder / "open.jsonl"
        table.write_text("".join(json.dumps(row | {"choices": None}) + "\n" for row in lines))
    images = str(table.with_name("images"))
    command = ["ask", images, "--questions", str(table), "--model", model, "-o", str(out)]
    code = call([*command, "--quiet", *(["--resume"] if out.exists() else [])])
    assert code == 0, code
    references = read_references(str(table))
    return read_labelled(RowMatcher(Table.of("rows", (str(out),)), references, ColumnOptions()))


def confidence_of(written: dict[str, Any], labelled: Labelled) -> np.ndarray:
    """The confidence of labelled answers by a calibration, as rows would hold it."""
    if written["kind"] == "texts":
        return np.round(values_of(written["curve"], labelled.logprobs), 6)
    temperatures = np.array([
        written["questions"].get(text, {"temperature": written["temperature"]})["temperature"]
        for text in labelled.question_texts
    ])  # fmt: skip
    found = labelled.choices[ASKED].confidence(temperatures[labelled.questions])
    return np.round(values_of(written["curve"], log_odds(found)) if written["curve"] else found, 6)


def draw(labelled: Labelled, pictures: np.ndarray, draws: int) -> Draws:
    """Fit to a share of the pictures and judge on the rest, many times."""
    precisions, counts, coverages, errors = [], [], [], []
    refused = 0
    numbers = np.unique(pictures)
    for seed in range(draws):
        mine = np.random.default_rng(seed).permutation(len(numbers)) < len(numbers) // LABELLED
        is_mine = mine[np.searchsorted(numbers, pictures)]
        written, _ = fit(labelled.only(np.flatnonzero(is_mine)))
        unseen = labelled.only(np.flatnonzero(~is_mine))
        confidence, correct = confidence_of(written, unseen), unseen.correct[ASKED]
        bins = reliability(confidence, correct)
        gaps = (b["count"] * abs(b["confidence"] - b["accuracy"]) for b in bins)
        errors.append(sum(gaps) / len(correct))
        try:
            least = lowest_confidence(
                written["thresholds"], PRECISION, written["design_effect"], "it"
            )
        except OptionError:
            refused += 1
            continue
        answered = confidence >= least
        counts.append(int(answered.sum()))
        coverages.append(float(answered.mean()))
        precisions.append(float(correct[answered].mean()))
    return Draws(
        sum(p >= PRECISION for p in precisions), refused, min(precisions, default=0.0),
        min(counts, default=0), float(np.mean(coverages or [0])), float(np.mean(errors)),
    )  # fmt: skip


def main() -> None:
    """Ask, draw, and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="*", default=["tiny", "tiny-t5"])
    parser.add_argument("--scenes", type=int, default=5000)
    parser.add_argument("--shapes", type=int, default=1000)
    parser.add_argument("--draws", type=int, default=100)
    parser.add_argument("--diagram", type=Path)
    parser.add_argument("--folder", type=Path, help="holds pictures and rows for the next time")
    given = parser.parse_args()
    plots = {}
    with tempfile.TemporaryDirectory() as name:
        folder = given.folder or Path(name)
        folders = {"scenes": folder / "scenes", "easy-VQA": folder / "shapes"}
        tables = {
            "scenes": write_scenes(folders["scenes"], given.scenes),
            "easy-VQA": write_shapes(folders["easy-VQA"], given.shapes),
        }
        print(f"{'':<28}{'answers':>9}{'accuracy':>9}{'ECE':>8}{'after':>8}{'unseen':>8}"
              f"{'held':>6}{'of':>5}{'refused':>8}{'lowest':>8}{'coverage':>9}{'fewest':>8}"
              f"{'seconds':>9}")  # fmt: skip
        for model in given.models:
            for kind, table in tables.items():
                for closed in (True, False):
                    start = time.perf_counter()
                    labelled = answers(folders[kind], table, model, closed)
                    seconds = time.perf_counter() - start
                    pictures = labelled.images // (1 if kind == "scenes" else 3)
                    written, _ = fit(labelled)
                    draws = draw(labelled, pictures, given.draws)
                    title = f"{model}, {kind}, {'chosen' if closed else 'written'}"
                    if closed:
                        plots[title] = written["reliability"]
                    before, after = written["before"], written["after"]
                    print(
                        f"{title:<28}{len(labelled.images):>9}{before['accuracy']:>9.4f}"
                        f"{before['ece']:>8.4f}{after['ece']:>8.4f}{draws.ece:>8.4f}"
                        f"{draws.held:>6}{given.draws:>5}{draws.refused:>8}{draws.lowest:>8.4f}"
                        f"{draws.coverage:>9.3f}{draws.fewest:>8}{seconds:>9.1f}",
                        flush=True,
                    )
                    good = after["ece"] <= LARGEST_ERROR and draws.held * 100 >= (
                        ENOUGH_DRAWS * given.draws
                    )
                    if not good:
                        print("  MISSED", flush=True)
                    if len(labelled.images) < ENOUGH_ROWS or draws.fewest < ENOUGH_ANSWERS:
                        print("  (too few rows, or answers, for a claim)", flush=True)
    if given.diagram is not None:
        given.diagram.write_text(diagram(plots))


if __name__ == "__main__":
    main()
