"""Measures of confidence, against definitions written as loops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from blip2cli.evaluate.calibration.measures import (
    auroc,
    design_effect,
    effective_reliability,
    measures,
    reliability,
    risk_coverage_area,
    threshold_lines,
)

ANSWERS = 600


@pytest.fixture
def answers() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Confidence, whether right, fold; no two are equally sure."""
    source = np.random.default_rng(3)
    confidence = source.permutation(np.linspace(0.05, 0.999, ANSWERS))
    correct = (source.random(ANSWERS) < confidence**1.5).astype(float)
    return confidence, correct, np.arange(ANSWERS) % 5


def test_risk_and_coverage_as_reliable_vqa_counts_them(
    answers: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    confidence, correct, folds = answers
    found = measures(confidence, correct, folds, unanswered=0)
    ranked = sorted(zip(confidence, correct, strict=True), key=lambda one: -one[0])
    risks, wrong = [], 0.0
    for number, (_, right) in enumerate(ranked, 1):
        wrong += 1 - right
        risks.append(wrong / number)
    for name, risk in (("1%", 0.01), ("5%", 0.05), ("10%", 0.1), ("20%", 0.2)):
        index = ANSWERS
        while index > 0 and risks[index - 1] > risk:
            index -= 1
        assert found[f"coverage@risk{name}"] == pytest.approx(index / ANSWERS)
    area = sum((a + b) / 2 / ANSWERS for a, b in itertools.pairwise(risks))
    assert found["risk_coverage_area"] == pytest.approx(area)
    assert found["accuracy"] == pytest.approx(correct.mean())
    assert found["brier"] == pytest.approx(np.mean((confidence - correct) ** 2))
    pairs = [
        (a > b) + (a == b) / 2
        for a, right in zip(confidence, correct, strict=True)
        if right
        for b, other in zip(confidence, correct, strict=True)
        if not other
    ]
    assert found["auroc"] == pytest.approx(np.mean(pairs))
    # A wrong answer costs ten: the threshold that gains most on the other folds.
    gained = 0.0
    for fold in range(5):
        best, threshold = 0.0, 2.0
        for candidate in confidence[folds != fold]:
            chosen = (folds != fold) & (confidence >= candidate)
            gain = np.where(correct[chosen] > 0, 1.0, -10.0).sum()
            if gain > best:
                best, threshold = gain, candidate
        chosen = (folds == fold) & (confidence >= threshold)
        gained += np.where(correct[chosen] > 0, 1.0, -10.0).sum()
    assert found["effective_reliability@cost10"] == pytest.approx(gained / ANSWERS)


def test_fifteen_bins_of_equal_mass(answers: tuple[np.ndarray, np.ndarray, np.ndarray]) -> None:
    confidence, correct, folds = answers
    bins = reliability(confidence, correct)
    assert [one["count"] for one in bins] == [40] * 15
    order = np.argsort(confidence)
    expected = np.mean([
        abs(confidence[order][at : at + 40].mean() - correct[order][at : at + 40].mean())
        for at in range(0, ANSWERS, 40)
    ])  # fmt: skip
    assert measures(confidence, correct, folds, 0)["ece"] == pytest.approx(expected)


def test_rows_without_an_answer_are_wrong_and_never_answered(
    answers: tuple[np.ndarray, np.ndarray, np.ndarray],
) -> None:
    confidence, correct, folds = answers
    found, whole = (measures(confidence, correct, folds, n) for n in (ANSWERS, 0))
    for name in ("accuracy", "coverage@risk5%", "effective_reliability@cost1"):
        assert found[name] == pytest.approx((whole[name] or 0) / 2)
    for name in ("ece", "brier", "auroc"):
        assert found[name] == whole[name]
    assert (found["risk_coverage_area"] or 0) > (whole["risk_coverage_area"] or 0)


def test_nothing_depends_on_the_order_of_answers_that_are_equally_sure() -> None:
    confidence = np.repeat([0.9, 0.6, 0.3], 50)
    correct = (np.random.default_rng(0).random(150) < confidence).astype(float)
    found = []
    for seed in range(3):
        order = np.random.default_rng(seed).permutation(150)
        one = measures(confidence[order], correct[order], np.arange(150)[order] % 5, 0)
        found.append({name: pytest.approx(value) for name, value in one.items()})
    assert found[0] == found[1] == found[2]
    # Answers of one confidence are answered together.
    assert (found[0]["coverage@risk20%"].expected * 3) % 1 == pytest.approx(0)


def test_what_cannot_be_measured() -> None:
    assert auroc(np.array([0.1, 0.9]), np.ones(2)) is None
    assert risk_coverage_area(np.array([0.5]), np.ones(1), 0) == 0
    assert not effective_reliability(np.full(4, 0.5), np.zeros(4), np.arange(4), 1).any()


def test_labels_of_one_image_count_less() -> None:
    source = np.random.default_rng(0)
    images = np.arange(4000)
    correct = (source.random(4000) < 0.8).astype(float)
    assert design_effect(correct, images) == 1
    assert design_effect(correct, images // 4) == pytest.approx(1, abs=0.1)
    assert design_effect(np.repeat(correct[:1000], 4), images // 4) == pytest.approx(4)
    assert design_effect(np.ones(10), images[:10]) == 1


def test_lines_of_thresholds_are_at_most_a_thousand() -> None:
    source = np.random.default_rng(0)
    confidence = np.round(source.random(5000), 4)
    correct = (source.random(5000) < confidence).astype(float)
    lines = threshold_lines(confidence, correct)
    assert 500 < len(lines) <= 1000
    assert lines[-1][1:] == [5000, correct.sum()]
    for least, count, right in (lines[0], lines[300], lines[-1]):
        chosen = confidence >= least
        assert [count, right] == [chosen.sum(), correct[chosen].sum()]
