"""Temperature scaling of choices: one number their scores are divided by (Guo et al., 2017).

It is fitted to whether answers are right, not to which choice is, so verdicts will do as labels,
and questions whose right answer is not among the choices.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from blip2cli.evaluate.calibration.curves import smoothed
from blip2cli.evaluate.key_index import Numbers

FEWEST_LABELS = 400  # of a question, for a temperature of its own
FEWEST_OF_EACH = 20  # right ones, and wrong ones
_LOW, _HIGH = np.log(0.02), np.log(50.0)
_GRID, _REFINEMENTS = 25, 24
_GOLDEN = (5**0.5 - 1) / 2


@dataclass(frozen=True)
class Choices:
    """The scores of the choices of many answers, one after the other."""

    scores: Numbers  # float64[all choices]
    starts: Numbers  # int64[n], where those of each answer begin
    chosen: Numbers  # int64[n], which of its choices an answer is, counted from 0

    def __len__(self) -> int:
        return len(self.starts)

    @property
    def sizes(self) -> Numbers:
        """How many choices each answer has, int64[n]."""
        return np.diff(self.starts, append=len(self.scores))

    def only(self, rows: Numbers) -> Choices:
        """Those of some answers; ``rows`` are their numbers."""
        sizes = self.sizes[rows]
        starts = np.cumsum(sizes) - sizes
        at = np.arange(sizes.sum()) + np.repeat(self.starts[rows] - starts, sizes)
        return Choices(self.scores[at], starts, self.chosen[rows])

    def confidence(self, temperature: Numbers | float = 1.0) -> Numbers:
        """The share of each answer in the softmax of its choices, float64[n].

        ``temperature`` is one, or one for each answer.
        """
        sizes = self.sizes
        top = np.maximum.reduceat(self.scores, self.starts)
        off = self.scores - np.repeat(top, sizes)
        by = np.repeat(temperature, sizes) if isinstance(temperature, np.ndarray) else temperature
        weights = np.exp(off / by)
        share: Numbers = weights[self.starts + self.chosen] / np.add.reduceat(weights, self.starts)
        return share


@dataclass(frozen=True)
class Temperatures:
    """One temperature, and those of questions that have their own."""

    common: float
    own: dict[int, float]  # by the number of the question

    def of(self, questions: Numbers) -> Numbers:
        """The temperature of each answer, float64[n]."""
        found = np.full(len(questions), self.common)
        for number, temperature in self.own.items():
            found[questions == number] = temperature
        return found


def with_enough_labels(questions: Numbers, correct: Numbers) -> list[int]:
    """Questions that have labels enough for a temperature of their own; none if there is one."""
    counts = np.bincount(questions)
    right = np.bincount(questions, correct, len(counts))
    enough = (counts >= FEWEST_LABELS) & (np.minimum(right, counts - right) >= FEWEST_OF_EACH)
    return np.flatnonzero(enough).tolist() if np.count_nonzero(counts) > 1 else []


def fit_temperatures(
    choices: Choices, correct: Numbers, questions: Numbers, own: list[int]
) -> Temperatures:
    """The likeliest temperatures; ``own`` are the questions that get one of theirs."""
    found = {}
    for number in own:
        rows = np.flatnonzero(questions == number)
        if len(rows):
            found[number] = fit_temperature(choices.only(rows), correct[rows])
    return Temperatures(fit_temperature(choices, correct), found)


def fit_temperature(choices: Choices, correct: Numbers) -> float:
    """The temperature under which the confidence of the answers explains best which are right.

    A grid over its logarithm, refined by golden sections.
    """
    targets = smoothed(correct)

    def loss(logarithm: float) -> float:
        share = np.clip(choices.confidence(float(np.exp(logarithm))), 1e-12, 1 - 1e-12)
        return -float(np.mean(targets * np.log(share) + (1 - targets) * np.log1p(-share)))

    grid = np.linspace(_LOW, _HIGH, _GRID)
    best = int(np.argmin([loss(point) for point in grid]))
    low, high = float(grid[max(best - 1, 0)]), float(grid[min(best + 1, _GRID - 1)])
    inner = [high - _GOLDEN * (high - low), low + _GOLDEN * (high - low)]
    losses = [loss(point) for point in inner]
    for _ in range(_REFINEMENTS):
        if losses[0] < losses[1]:
            high, inner[1], losses[1] = inner[1], inner[0], losses[0]
            inner[0] = high - _GOLDEN * (high - low)
            losses[0] = loss(inner[0])
        else:
            low, inner[0], losses[0] = inner[0], inner[1], losses[1]
            inner[1] = low + _GOLDEN * (high - low)
            losses[1] = loss(inner[1])
    return round(float(np.exp((low + high) / 2)), 6)
