"""Intervals: drawn by image, the same at every run, and as wide as theory says."""

from __future__ import annotations

import numpy as np
import pytest

from blip2cli.evaluate.bootstrap import figures_with_intervals, paired_differences, sums_by_image
from blip2cli.evaluate.statistics import mean_of

SOURCE = np.random.default_rng(5)


def test_the_interval_of_a_mean_is_the_one_of_the_normal_law() -> None:
    scores = SOURCE.random(2000)
    ((name, value, low, high),) = figures_with_intervals([mean_of("m", scores)], np.arange(2000))
    half = 1.96 * scores.std() / np.sqrt(2000)
    assert (name, value) == ("m", pytest.approx(scores.mean()))
    assert (value - low, high - value) == pytest.approx((half, half), rel=0.15)


def test_rows_of_one_image_are_drawn_together() -> None:
    hard = SOURCE.integers(0, 2, 300).astype(float)
    scores, images = np.repeat(hard, 9), np.repeat(np.arange(300), 9)
    ((_, value, low, high),) = figures_with_intervals([mean_of("m", scores)], images)
    ((_, same, apart_low, apart_high),) = figures_with_intervals(
        [mean_of("m", scores)], np.arange(2700)
    )
    assert value == pytest.approx(same)
    assert (high - low) / (apart_high - apart_low) == pytest.approx(3, rel=0.15)


def test_what_is_hard_for_both_falls_out_of_the_difference() -> None:
    base = SOURCE.random(1000)
    better = base + 0.01
    images = np.arange(1000)
    ((_, value, low, high),) = paired_differences(
        [mean_of("m", base)], [mean_of("m", better)], images
    )
    assert (value, low, high) == pytest.approx((0.01, 0.01, 0.01))


def test_the_same_rows_give_the_same_interval() -> None:
    one = [mean_of("m", SOURCE.random(50))]
    first, second = (figures_with_intervals(one, np.arange(50)) for _ in range(2))
    assert first == second


def test_sums_of_images() -> None:
    values = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 6.0]])
    assert sums_by_image(values, np.array([7, 3, 7])).tolist() == [[3.0, 4.0], [6.0, 8.0]]
