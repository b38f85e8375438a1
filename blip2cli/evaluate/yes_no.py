"""Yes or no, as POPE asks for objects (Li et al., 2023): with "yes" as the positive class.

An answer is what its first word says. One that is neither counts as wrong: it is no "yes" and no
"no", so it lowers recall where "yes" is right, and precision nowhere. The yes-ratio is that of the
answers, not of the references.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence

import numpy as np

from blip2cli.evaluate.key_index import Numbers
from blip2cli.evaluate.predictions import Predictions
from blip2cli.evaluate.references import References
from blip2cli.evaluate.statistics import Statistics, ratio

_FIRST_WORD = re.compile(r"[\W_]*(yes|no)\b")
NAMES = ("yesno_accuracy", "yesno_precision", "yesno_recall", "yesno_f1", "yesno_yes_ratio")


def says(text: str) -> str | None:
    """``yes``, ``no``, or None for neither."""
    found = _FIRST_WORD.match(text.lower())
    return found[1] if found is not None else None


def all_yes_or_no(references: References) -> bool:
    """Whether every reference says yes or no."""
    return all(majority(references.texts(number)) for number in range(len(references)))


def majority(texts: Sequence[str]) -> str | None:
    """What most of the texts say; the first of two that are answer as often."""
    found = Counter(says(text) for text in texts)
    return found.most_common(1)[0][0] if found else None


def statistics(predictions: Predictions) -> Statistics:
    """Right yes, wrong yes, missed yes, right no, answers of yes, rows."""
    values = np.zeros((len(predictions), 6))
    for row, (text, references) in enumerate(predictions.pairs()):
        answer = says(text) if predictions.answered[row] else None
        truth = majority(references)
        values[row] = (
            answer == truth == "yes",
            answer == "yes" != truth,
            truth == "yes" != answer,
            answer == truth == "no",
            answer == "yes",
            1,
        )
    return Statistics(NAMES, values, _figures)


def _figures(sums: Numbers) -> Numbers:
    hits, false_alarms, misses, right_no, yes, rows = np.moveaxis(sums, -1, 0)
    precision, recall = ratio(hits, hits + false_alarms), ratio(hits, hits + misses)
    f1 = ratio(2 * hits, 2 * hits + false_alarms + misses)
    return np.stack([ratio(hits + right_no, rows), precision, recall, f1, ratio(yes, rows)], -1)
