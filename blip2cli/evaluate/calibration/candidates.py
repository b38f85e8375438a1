"""Ways to calibrate, each fitted to all labels, and judged on folds that it was not fitted to.

Folds are of images, not of rows: several questions of one image share what makes it hard.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from blip2cli.evaluate.calibration.curves import fit_isotonic, fit_platt, log_odds, values_of
from blip2cli.evaluate.calibration.labelled import ASKED, Labelled
from blip2cli.evaluate.calibration.temperature import fit_temperatures, with_enough_labels
from blip2cli.evaluate.key_index import Numbers
from blip2cli.tasks.calibration import CONFIDENCE_DECIMALS

FOLDS = 5
_SEED = 0
_FITS = (fit_platt, fit_isotonic)


@dataclass(frozen=True)
class Candidate:
    """One way to calibrate, and the confidence it gives; arrays are float64[n], 0 to 1."""

    norm: str
    correct: Numbers
    before: Numbers
    after: Numbers  # by what was fitted to the other folds
    # That by which thresholds are found. A curve keeps the order of texts, so their precision
    # above a confidence does not depend on the labels that it was fitted to; temperatures change
    # the order, and are taken from the other folds.
    ranked: Numbers
    temperature: float | None = None
    questions: dict[str, dict[str, float]] = field(default_factory=dict)
    curve: dict[str, Any] | None = None

    @property
    def brier(self) -> float:
        """The mean squared error of the confidence, held out."""
        return float(np.mean((self.after - self.correct) ** 2))


def folds_of(images: Numbers) -> Numbers:
    """The fold of each row, int64[n]; all rows of an image are in one."""
    _, codes = np.unique(images, return_inverse=True)
    count = int(codes.max()) + 1
    order = np.random.default_rng(_SEED).permutation(count)
    found: Numbers = (order % min(FOLDS, count))[codes]
    return found


def of_choices(labelled: Labelled, folds: Numbers, key: str, norm: str) -> Candidate:
    """Temperatures for the choices under ``key``, which compare by ``norm``; and a curve over what
    they give, where that has a smaller squared error on the folds held out."""
    choices, correct, questions = labelled.choices[key], labelled.correct[key], labelled.questions
    own = with_enough_labels(questions, correct)
    tempered, curved = np.zeros(len(correct)), np.zeros(len(correct))
    for rest, mine in _splits(folds):
        fitted = fit_temperatures(choices.only(rest), correct[rest], questions[rest], own)
        known = choices.only(rest).confidence(fitted.of(questions[rest]))
        tempered[mine] = choices.only(mine).confidence(fitted.of(questions[mine]))
        curve = fit_isotonic(log_odds(known), correct[rest])
        curved[mine] = values_of(curve, log_odds(tempered[mine]))
    fitted = fit_temperatures(choices, correct, questions, own)
    labels = np.bincount(questions)
    texts = labelled.question_texts
    about = {
        texts[number]: {"temperature": temperature, "labels": int(labels[number])}
        for number, temperature in sorted(fitted.own.items(), key=lambda one: texts[one[0]])
    }
    before = _rounded(choices.confidence())
    after, ranked = _rounded(tempered), _rounded(tempered)
    plain = Candidate(norm, correct, before, after, ranked, fitted.common, about)
    curve = fit_isotonic(log_odds(choices.confidence(fitted.of(questions))), correct)
    ranked = _rounded(values_of(curve, log_odds(tempered)))
    with_curve = replace(plain, after=_rounded(curved), ranked=ranked, curve=curve)
    return min(plain, with_curve, key=lambda one: one.brier)


def of_texts(
    labelled: Labelled, folds: Numbers, count_tokens: Callable[[str], int] | None
) -> Iterator[Candidate]:
    """Curves over the log-probability of a token, and where tokens can be counted of the text."""
    correct = labelled.correct[ASKED]
    scores = {"logprob_mean": labelled.logprobs}
    if count_tokens is not None:
        lengths = np.array([count_tokens(text) for text in labelled.texts], float)
        scores["logprob_sum"] = labelled.logprobs * lengths
    for norm, values in scores.items():
        for fit in _FITS:
            after = np.zeros(len(correct))
            for rest, mine in _splits(folds):
                after[mine] = values_of(fit(values[rest], correct[rest]), values[mine])
            curve = fit(values, correct)
            before = _rounded(np.exp(np.minimum(values, 0.0)))
            ranked = _rounded(values_of(curve, values))
            yield Candidate(norm, correct, before, _rounded(after), ranked, curve=curve)


def _splits(folds: Numbers) -> Iterator[tuple[Numbers, Numbers]]:
    """The rows of all folds but one, and of that one, for each."""
    for fold in np.unique(folds):
        yield np.flatnonzero(folds != fold), np.flatnonzero(folds == fold)


def _rounded(confidence: Numbers) -> Numbers:
    """As rows hold it."""
    found: Numbers = np.round(confidence, CONFIDENCE_DECIMALS)
    return found
