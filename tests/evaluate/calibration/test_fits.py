"""Fits against what defines them: optima, and isotonic regression's formula."""

from __future__ import annotations

import math

import numpy as np
import pytest

from blip2cli.evaluate.calibration.candidates import folds_of
from blip2cli.evaluate.calibration.curves import (
    fit_isotonic,
    fit_platt,
    isotonic_blocks,
    log_odds,
    smoothed,
    values_of,
)
from blip2cli.evaluate.calibration.temperature import (
    Choices,
    fit_temperature,
    fit_temperatures,
    with_enough_labels,
)
from blip2cli.tasks.calibration import curve_value
from blip2cli.tasks.calibration import log_odds as log_odds_of_one


def scored(count: int, seed: int = 0, slope: float = 2.0) -> tuple[np.ndarray, np.ndarray]:
    source = np.random.default_rng(seed)
    scores = source.normal(-1, 0.7, count)
    correct = source.random(count) < 1 / (1 + np.exp(-(slope * scores + 2)))
    return scores, correct.astype(float)


def test_platt_scaling_is_the_likeliest_logistic_curve() -> None:
    scores, correct = scored(3000)
    curve = fit_platt(scores, correct)
    assert curve["slope"] == pytest.approx(2, abs=0.3)
    assert curve["intercept"] == pytest.approx(2, abs=0.3)
    left = values_of(curve, scores) - smoothed(correct)
    assert abs(left.sum()) < 1e-3  # the gradient is 0
    assert abs(np.dot(left, scores)) < 1e-3
    # Scores that say the opposite say nothing.
    assert fit_platt(-scores, correct)["slope"] == 0
    separated = fit_platt(np.array([-3.0, -2.0, 2.0, 3.0]), np.array([0.0, 0, 1, 1]))
    assert 0 < separated["slope"] < 10
    assert fit_platt(np.ones(9), np.ones(9))["slope"] == 0


def test_isotonic_blocks_are_those_of_the_definition() -> None:
    source = np.random.default_rng(5)
    scores = np.round(source.normal(size=60), 1)  # some come again
    correct = (source.random(60) < 0.5).astype(float)
    values = np.unique(scores)
    means = [
        max(
            min(correct[(scores >= low) & (scores <= high)].mean() for high in values[values >= v])
            for low in values[values <= v]
        )
        for v in values
    ]
    blocks = isotonic_blocks(scores, correct)
    assert sum(size for *_, size in blocks) == 60
    assert [share for _, share, _ in blocks] == pytest.approx(sorted(set(np.round(means, 12))))
    curve = fit_isotonic(scores, correct)
    assert curve["y"] == sorted(curve["y"])
    assert 0 < curve["y"][0] <= curve["y"][-1] < 1


@pytest.mark.parametrize("fit", [fit_platt, fit_isotonic])
def test_a_run_reads_curves_as_they_were_fitted(fit: object) -> None:
    scores, correct = scored(500)
    curve = fit(scores, correct)  # type: ignore[operator]
    wide = np.concatenate([scores, [-800, -9, 9, 800]])
    assert [curve_value(curve, x) for x in wide] == pytest.approx(list(values_of(curve, wide)))


def test_shares_become_log_odds_alike() -> None:
    shares = np.array([0, 1e-12, 0.3, 0.5, 1 - 1e-12, 1])
    assert [log_odds_of_one(x) for x in shares] == pytest.approx(list(log_odds(shares)))
    assert log_odds_of_one(0.5) == 0


def choices(count: int, temperature: float, seed: int = 0) -> tuple[Choices, np.ndarray]:
    """Answers of a model whose scores are ``temperature`` times as far apart as they should be."""
    source = np.random.default_rng(seed)
    sizes = source.integers(2, 6, count)
    starts = np.cumsum(sizes) - sizes
    scores = source.normal(0, 1.5, sizes.sum())
    chosen, right = [], []
    for start, size in zip(starts, sizes, strict=True):
        own = scores[start : start + size]
        share = np.exp(own) / np.exp(own).sum()
        chosen.append(int(own.argmax()))
        right.append(source.random() < share[chosen[-1]])
    return Choices(scores * temperature, starts, np.array(chosen)), np.array(right, float)


def test_the_temperature_is_found_again() -> None:
    for temperature in (0.5, 1.0, 3.0):
        few, right = choices(4000, temperature)
        assert fit_temperature(few, right) == pytest.approx(temperature, rel=0.1)
    # All right: as sharp as may be, and not without end.
    few, right = choices(60, 1.0)
    assert 0.02 <= fit_temperature(few, np.ones(60)) < 1


def test_the_share_of_an_answer_is_the_softmax_of_its_choices() -> None:
    few, _ = choices(50, 2.0)
    for temperature in (1.0, 2.5):
        shares = few.confidence(temperature)
        for row, (start, size) in enumerate(zip(few.starts, few.sizes, strict=True)):
            own = [math.exp(s / temperature) for s in few.scores[start : start + size]]
            assert shares[row] == pytest.approx(own[few.chosen[row]] / sum(own))
    some = np.array([3, 7, 8])
    assert few.only(some).confidence() == pytest.approx(few.confidence()[some])
    huge = Choices(np.array([-700.0, 0.0, -1e5]), np.array([0]), np.array([1]))
    assert huge.confidence() == 1


def test_a_question_with_enough_labels_has_a_temperature_of_its_own() -> None:
    few, right = choices(500, 1.0)
    more, right_of_more = choices(900, 4.0, seed=1)
    both = Choices(
        np.concatenate([few.scores, more.scores]),
        np.concatenate([few.starts, more.starts + len(few.scores)]),
        np.concatenate([few.chosen, more.chosen]),
    )
    correct = np.concatenate([right, right_of_more])
    questions = np.repeat([0, 1, 2], [500, 800, 100])
    own = with_enough_labels(questions, correct)
    assert own == [0, 1]
    found = fit_temperatures(both, correct, questions, own)
    assert found.own[0] == pytest.approx(1, rel=0.2)
    assert found.own[1] == pytest.approx(4, rel=0.2)
    assert found.of(np.array([1, 2])).tolist() == [found.own[1], found.common]
    assert with_enough_labels(np.zeros(900, int), right_of_more) == []  # it is the only one


def test_folds_are_of_images() -> None:
    images = np.repeat(np.arange(100), 3)
    folds = folds_of(images)
    assert np.bincount(folds).tolist() == [60] * 5
    assert all(len(set(folds[images == image])) == 1 for image in range(100))
