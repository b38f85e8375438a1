"""Measures of confidence: how well it agrees with what is right, and what abstaining gains.

Names and definitions as in ``reliable_vqa`` (Whitehead et al., ECCV 2022), where it has them. Rows
without an answer are wrong and never answered: they lower accuracy, coverage and reliability, and
have no confidence that the others could be about. Answers of one confidence count as their mean, so
that nothing depends on the order of rows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blip2cli.evaluate.key_index import Numbers

BINS = 15
RISKS = (0.01, 0.05, 0.1, 0.2)
COSTS = (1, 10, 100)
_MOST_LINES = 1000


def measures(
    confidence: Numbers, correct: Numbers, folds: Numbers, unanswered: int
) -> dict[str, float | None]:
    """All measures by name; None where there is nothing to measure.

    ``confidence`` and ``correct`` are float64[n], 0 to 1; ``folds`` are int64[n], the thresholds of
    effective reliability are chosen on the folds they are not judged on. ``unanswered``: rows
    beside them that have no answer.
    """
    count = len(confidence) + unanswered
    bins = reliability(confidence, correct)
    found: dict[str, float | None] = {
        "accuracy": float(correct.sum()) / count,
        "ece": sum(b["count"] * abs(b["confidence"] - b["accuracy"]) for b in bins)
        / len(confidence),
        "brier": float(np.mean((confidence - correct) ** 2)),
        "auroc": auroc(confidence, correct),
        "risk_coverage_area": risk_coverage_area(confidence, correct, unanswered),
    }
    answered, right = cumulated(confidence, correct)[1:]
    for risk in RISKS:
        good = np.flatnonzero(answered - right <= risk * answered + 1e-9)
        coverage = float(answered[good[-1]]) / count if len(good) else 0.0
        found[f"coverage@risk{risk:.0%}"] = coverage
    for cost in COSTS:
        gain = effective_reliability(confidence, correct, folds, cost)
        found[f"effective_reliability@cost{cost}"] = float(gain.sum()) / count
    return found


def reliability(confidence: Numbers, correct: Numbers, bins: int = BINS) -> list[dict[str, Any]]:
    """Mean confidence, accuracy and count in bins of equal mass, from the least confident up."""
    order = np.argsort(confidence, kind="stable")
    correct = _tied(confidence, correct)
    return [
        {
            "confidence": float(confidence[chosen].mean()),
            "accuracy": float(correct[chosen].mean()),
            "count": len(chosen),
        }
        for chosen in np.array_split(order, bins)
        if len(chosen)
    ]


def auroc(confidence: Numbers, correct: Numbers) -> float | None:
    """How often a right answer is more confident than a wrong one, ties counted as half.

    None where all are right, or all wrong; what is half right counts as both.
    """
    values, codes = np.unique(confidence, return_inverse=True)
    right = np.bincount(codes, correct, len(values))
    wrong = np.bincount(codes, 1 - correct, len(values))
    if not right.sum() or not wrong.sum():
        return None
    below = np.cumsum(wrong) - wrong / 2
    return float(np.dot(right, below) / right.sum() / wrong.sum())


def risk_coverage_area(confidence: Numbers, correct: Numbers, unanswered: int) -> float:
    """The area under risk over coverage, by trapezoids; unanswered rows come last, as wrong."""
    order = np.argsort(-confidence, kind="stable")
    wrong = np.concatenate([1 - _tied(confidence, correct)[order], np.ones(unanswered)])
    steps = np.arange(1, len(wrong) + 1)
    risk = np.cumsum(wrong) / steps
    return (
        float((risk[:-1] + risk[1:]).sum() / 2 / len(wrong)) if len(wrong) > 1 else float(risk[0])
    )


def cumulated(confidence: Numbers, correct: Numbers) -> tuple[Numbers, Numbers, Numbers]:
    """Each confidence, from the highest down, answers at or above it, and right ones of them."""
    values, codes = np.unique(-confidence, return_inverse=True)
    answered = np.cumsum(np.bincount(codes, minlength=len(values)))
    return -values, answered, np.cumsum(np.bincount(codes, correct, len(values)))


def threshold_lines(confidence: Numbers, correct: Numbers) -> list[list[float]]:
    """Confidence, answers and right ones, from the most confident down; 1,000 lines at most."""
    values, answered, right = cumulated(confidence, correct)
    last = np.linspace(0, len(confidence), min(_MOST_LINES, len(values)) + 1)[1:]
    chosen = np.unique(np.searchsorted(answered, last))
    chosen = chosen[chosen < len(values)]
    return [
        [float(values[i]), int(answered[i]), round(float(right[i]), 4)] for i in chosen.tolist()
    ]


def effective_reliability(
    confidence: Numbers, correct: Numbers, folds: Numbers, cost: float
) -> Numbers:
    """What each row gains: its score where it is answered, minus ``cost`` where that is 0.

    Answered is from a confidence on that would have gained most on the other folds.
    """
    gains = np.where(correct > 0, correct, -float(cost))
    result = np.zeros(len(confidence))
    for fold in np.unique(folds):
        mine = folds == fold
        values, _, sums = cumulated(confidence[~mine], gains[~mine])
        best = int(np.argmax(sums)) if len(sums) else 0
        if len(sums) and sums[best] > 0:
            answered = mine & (confidence >= values[best])
            result[answered] = gains[answered]
    return result


def design_effect(correct: Numbers, images: Numbers) -> float:
    """How many labels say as much as one that depends on no other; 1 with one an image.

    The variance of the sum over images, over that of as many rows that do not depend on each other
    (Kish, 1965).
    """
    off = correct - correct.mean()
    apart = float(np.dot(off, off))
    _, codes = np.unique(images, return_inverse=True)
    together = np.bincount(codes, off)
    return max(1.0, float(np.dot(together, together)) / apart) if apart else 1.0


def _tied(confidence: Numbers, correct: Numbers) -> Numbers:
    """``correct``, for answers of one confidence their mean."""
    _, codes = np.unique(confidence, return_inverse=True)
    means: Numbers = np.bincount(codes, correct) / np.bincount(codes)
    return means[codes]
