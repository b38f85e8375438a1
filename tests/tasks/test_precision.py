"""The confidence from which on labels show a precision."""

from __future__ import annotations

import math
import random

import pytest

from blip2cli.errors import OptionError
from blip2cli.tasks.precision import first_step, labels_needed, lowest_confidence, reached, shown


def binomial_tail(count: int, wrong: int, chance: float) -> float:
    return sum(
        math.comb(count, i) * chance**i * (1 - chance) ** (count - i) for i in range(wrong + 1)
    )


@pytest.mark.parametrize(
    ("count", "wrong"),
    [(71, 0), (72, 0), (108, 1), (110, 1), (400, 11), (1000, 36), (1000, 37), (1000, 49)],
)
def test_the_bound_of_clopper_and_pearson(count: int, wrong: int) -> None:
    assert shown(count, wrong, 0.95) == (binomial_tail(count, wrong, 0.05) <= 0.025)


def test_72_right_answers_show_95_percent() -> None:
    assert shown(72, 0, 0.95)
    assert not shown(71, 0, 0.95)
    assert not shown(72, 0.5, 0.95)  # fractions to the careful side
    assert not shown(5, 5, 0.5)


@pytest.mark.parametrize("precision", [0.01, 0.5, 0.8, 0.9, 0.95, 0.99, 0.999])
def test_the_walk_begins_where_half_of_the_mistakes_are_borne(precision: float) -> None:
    first = first_step(precision)
    wrong = math.floor(first * (1 - precision) / 2)
    assert shown(first, wrong, precision)
    assert not shown(first - 1, wrong, precision)
    assert first * (1 - precision) < 13


def lines_of(precision_at: list[float], step: int = 20, seed: int = 0) -> list[tuple]:
    """Lines of answers whose chance to be right falls."""
    source = random.Random(seed)
    lines, count, right = [], 0, 0
    for number, chance in enumerate(precision_at):
        count += step
        right += sum(source.random() < chance for _ in range(step))
        lines.append((1 - number / len(precision_at), count, right))
    return lines


def test_the_walk_ends_before_the_precision_is_in_doubt() -> None:
    lines = lines_of([0.995] * 100 + [0.5] * 100)
    line = reached(lines, 0.95)
    assert line is not None
    assert 0.9 < line[1] / 2000 < 1.1
    assert lowest_confidence(lines, 0.95, 1.0, "c.json") == line[0]
    dependent = reached(lines, 0.95, 3.0)
    assert dependent is not None
    assert dependent[1] <= line[1]


def test_a_precision_that_is_missed_is_hardly_ever_shown() -> None:
    """True precision is just below what is wanted, at every confidence."""
    trials = 400
    found = sum(reached(lines_of([0.949] * 100, seed=n), 0.95) is not None for n in range(trials))
    assert found / trials < 0.075  # 0.05, and more than two standard errors of 400 trials


def test_the_error_says_how_many_labels_are_missing() -> None:
    good = lines_of([0.99] * 2)
    with pytest.raises(OptionError, match=r"c\.json, of 40 labels.*label about \d+ more") as error:
        lowest_confidence(good, 0.95, 1.0, "c.json")
    assert error.value.field == "min_precision"
    needed = labels_needed(good, 0.95, 1.0)
    assert needed is not None
    assert 150 < needed < 600
    with pytest.raises(OptionError, match="more labels would not do"):
        lowest_confidence(lines_of([0.8] * 50), 0.95, 1.0, "c.json")
    # Of the answers in the middle more labels say nothing: no walk begins there.
    stopped = lines_of([0.9] * 15 + [1.0] * 60 + [0.5] * 125)
    assert max(right / count for _, count, right in stopped) > 0.97
    with pytest.raises(OptionError, match="would not do, as too many of its most confident"):
        lowest_confidence(stopped, 0.95, 1.0, "c.json")
    with pytest.raises(OptionError, match="label about 230 more"):
        lowest_confidence([], 0.95, 1.0, "c.json")
