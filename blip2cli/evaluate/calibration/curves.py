"""Curves from a score to the share of right texts: Platt scaling and isotonic regression.

Both never fall: a text with a higher score is at least as sure.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from blip2cli.evaluate.key_index import Numbers
from blip2cli.tasks.calibration import SMALLEST_ODDS

_STEPS = 100
_TOLERANCE = 1e-10


def smoothed(correct: Numbers) -> Numbers:
    """Targets a little off 0 and 1, so that no share is certain (Platt, 1999, section 2.2)."""
    right = float(correct.sum())
    low, high = 1 / (len(correct) - right + 2), (right + 1) / (right + 2)
    targets: Numbers = low + correct * (high - low)
    return targets


def fit_platt(scores: Numbers, correct: Numbers) -> dict[str, Any]:
    """A logistic function of the score with the likeliest slope, 0 at least, and intercept.

    Newton's method with halved steps (Lin, Lin and Weng, 2007), on standardized scores.
    """
    targets = smoothed(correct)
    mean, spread = float(scores.mean()), float(scores.std()) or 1.0
    x = np.stack([(scores - mean) / spread, np.ones(len(scores))], axis=1)
    share = float(targets.mean())
    weights = np.array([0.0, np.log(share / (1 - share))])
    loss = _loss(x @ weights, targets)
    for _ in range(_STEPS):
        probability = _logistic(x @ weights)
        gradient = x.T @ (probability - targets)
        hessian = (x * (probability * (1 - probability))[:, None]).T @ x + 1e-12 * np.eye(2)
        step = np.linalg.solve(hessian, gradient)
        size = 1.0
        while size > 1e-10 and _loss(x @ (weights - size * step), targets) > loss:
            size /= 2
        new = weights - size * step
        new_loss = _loss(x @ new, targets)
        if loss - new_loss <= _TOLERANCE * abs(loss):
            break
        weights, loss = new, new_loss
    slope = float(weights[0]) / spread
    if slope < 0:  # scores that say the opposite say nothing
        return {"method": "platt", "slope": 0.0, "intercept": float(np.log(share / (1 - share)))}
    return {"method": "platt", "slope": slope, "intercept": float(weights[1]) - slope * mean}


def fit_isotonic(scores: Numbers, correct: Numbers) -> dict[str, Any]:
    """Straight lines between the means of blocks in which the share of right texts rises.

    The blocks are those of isotonic regression; lines between their means instead of steps keep
    texts apart that the steps make equal (Oron and Flournoy, 2017). A share is shrunk to a half by
    one text right and one wrong, so that no small block is certain.
    """
    blocks = isotonic_blocks(scores, correct)
    x = [float(b[0]) for b in blocks]
    y = [(float(b[1]) * b[2] + 1) / (b[2] + 2) for b in blocks]
    rising = np.maximum.accumulate(y)
    return {"method": "isotonic", "x": x, "y": [float(value) for value in rising]}


def isotonic_blocks(scores: Numbers, correct: Numbers) -> list[tuple[float, float, float]]:
    """Mean score, share of right texts and size of each block, by pooling adjacent violators."""
    values, codes = np.unique(scores, return_inverse=True)
    counts = np.bincount(codes)
    sums = np.bincount(codes, correct)
    found: list[list[float]] = []  # sums of scores and of right ones, and sizes
    for value, total, count in zip(values.tolist(), sums.tolist(), counts.tolist(), strict=True):
        block = [value * count, total, count]
        while found and found[-1][1] * block[2] >= block[1] * found[-1][2]:
            before = found.pop()
            block = [mine + other for mine, other in zip(before, block, strict=True)]
        found.append(block)
    return [(score / count, right / count, count) for score, right, count in found]


def values_of(curve: dict[str, Any], scores: Numbers) -> Numbers:
    """The curve at many scores; as ``tasks.calibration.curve_value``."""
    if curve["method"] == "platt":
        return _logistic(curve["slope"] * scores + curve["intercept"])
    found: Numbers = np.interp(scores, curve["x"], curve["y"])
    return found


def log_odds(shares: Numbers) -> Numbers:
    """As ``tasks.calibration.log_odds``, of many."""
    shares = np.clip(shares, SMALLEST_ODDS, 1 - SMALLEST_ODDS)
    found: Numbers = np.log(shares / (1 - shares))
    return found


def _logistic(x: Numbers) -> Numbers:
    result: Numbers = 0.5 * (1 + np.tanh(x / 2))
    return result


def _loss(x: Numbers, targets: Numbers) -> float:
    """Minus the log-likelihood of logits."""
    return float(np.sum(np.logaddexp(0, x) - targets * x))
