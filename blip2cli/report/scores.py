"""Rows beside references: metrics of the output, a score of each row, the reliability diagram."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from blip2cli.evaluate import cider
from blip2cli.evaluate.calibration.labelled import score_text
from blip2cli.evaluate.calibration.measures import reliability
from blip2cli.evaluate.evaluation import Evaluation, Figure
from blip2cli.evaluate.match_rows import RowMatcher
from blip2cli.evaluate.metric_table import QUICK_CAPTION_METRICS, Scoring
from blip2cli.evaluate.predictions import Predictions
from blip2cli.evaluate.read_rows import Columns, Table
from blip2cli.evaluate.references import References
from blip2cli.evaluate.run import evaluate_rows, row_kind
from blip2cli.evaluate.vqa_accuracy import FEWEST_ANSWERS
from blip2cli.options import EvalOptions
from blip2cli.report.plain import number, plain

_ROW = "\0row"  # a column of the numbers of rows; no file has one of this name
_MOST_REFERENCES = 10  # of a row


@dataclass(frozen=True)
class RowScores:
    """What references say of each row; lists have the rows' length."""

    name: str  # of the score
    scores: list[float | None]  # None: no reference, or the row abstained
    references: list[list[str] | None]
    # Of rows whose confidence says how sure an answer is, abstained ones by their guess.
    bins: list[dict[str, Any]] = field(default_factory=list)
    ece: float | None = None  # expected calibration error


class _NumberedTable(Table):
    """A table whose rows know their numbers."""

    def batches(self, wanted: Sequence[str]) -> Iterator[tuple[int, Columns]]:
        start = 0
        for size, batch in super().batches([name for name in wanted if name != _ROW]):
            yield size, {**batch, _ROW: list(range(start, start + size))}
            start += size


def score_rows(
    table: Table,
    references: References,
    options: EvalOptions,
    confidences: Sequence[float | None],
) -> RowScores:
    """Score each row; ``confidences`` are those of the rows that are shown. Raises SourceError."""
    matcher = RowMatcher(_NumberedTable(table.field, table.paths), references, options)
    found = Predictions.read(matcher, (_ROW, "guess"))
    texts = found.texts.to_pylist()
    theirs = references.text_lists(found.numbers)
    by_words = _by_words(table, references, options)
    if by_words:
        name = "cider"
        scores = cider.scores(Scoring(found).tokens)
    else:
        several = references.kind == "answers" and references.most_texts >= FEWEST_ANSWERS
        name = "vqa" if several and references.wrong is None else "normalized"
        guessed = [
            guess if abstained and guess else text
            for text, guess, abstained in zip(
                texts, found.columns["guess"], found.abstained, strict=True
            )
        ]
        scores = np.array([
            score_text(text, right, references) for text, right in zip(guessed, theirs, strict=True)
        ])  # fmt: skip
    count = len(confidences)
    by_row: list[float | None] = [None] * count
    texts_by_row: list[list[str] | None] = [None] * count
    sure: list[float] = []
    right: list[float] = []
    for at, shown in enumerate(found.columns[_ROW]):
        row = int(shown) if shown else count
        if row >= count:  # an image that failed, or a row beyond the limit
            continue
        texts_by_row[row] = [plain(text) for text in theirs[at][:_MOST_REFERENCES]]
        if not found.abstained[at]:
            by_row[row] = number(float(scores[at] * found.answered[at]))
        confidence = confidences[row]
        judged = not by_words and references.judges(int(found.numbers[at]), guessed[at].strip())
        if judged and confidence is not None:
            sure.append(confidence)
            right.append(float(scores[at]))
    bins = reliability(np.array(sure), np.array(right)) if sure else []
    gaps = [abs(one["confidence"] - one["accuracy"]) * one["count"] for one in bins]
    ece = number(sum(gaps) / len(sure)) if sure else None
    return RowScores(name, by_row, texts_by_row, [plain(one) for one in bins], ece)


def evaluation_of(table: Table, references: References, options: EvalOptions) -> Evaluation:
    """The figures of the output, but for metrics that would take long. Raises UserError."""
    if _by_words(table, references, options):
        options = replace(options, metric=QUICK_CAPTION_METRICS)
    return evaluate_rows(table, references, options)


def metrics_of(found: Evaluation) -> list[dict[str, Any]]:
    """The figures of the output, and of another one it is compared with."""
    others = {one.name: one for one in found.other}
    differences = {one.name: one for one in found.differences}
    return [
        {"name": one.name, **_interval(one)}
        | ({"other": _interval(others[one.name])} if one.name in others else {})
        | ({"difference": _interval(differences[one.name])} if one.name in differences else {})
        for one in found.figures
    ]


def _by_words(table: Table, references: References, options: EvalOptions) -> bool:
    """Whether texts are compared by their words; verdicts say of captions, too, what is right."""
    return references.wrong is None and row_kind(table, references, options) == "captions"


def _interval(figure: Figure) -> dict[str, float | None]:
    return {name: number(value) for name, value in figure.as_dict().items()}
