"""Statistics of a metric: numbers a row, whose sums over rows give the figures."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from blip2cli.evaluate.key_index import Numbers


@dataclass(frozen=True)
class Statistics:
    """What a metric knows of each row, and how figures come from sums of it."""

    names: tuple[str, ...]
    values: Numbers  # [rows, width]
    figures: Callable[[Numbers], Numbers]  # sums [..., width] → figures [..., len(names)]


def mean_of(name: str, scores: Numbers) -> Statistics:
    """A figure that is the mean of a score of each row."""
    values = np.stack([scores, np.ones(len(scores))], axis=1)
    return Statistics((name,), values, mean)


def mean(sums: Numbers) -> Numbers:
    """The mean of sums and counts, ``[..., 2]`` → ``[..., 1]``."""
    return ratio(sums[..., :1], sums[..., 1:])


def ratio(part: Numbers, whole: Numbers) -> Numbers:
    """``part / whole``, 0 where nothing is counted."""
    result: Numbers = np.divide(part, whole, out=np.zeros(np.shape(part)), where=whole != 0)
    return result
