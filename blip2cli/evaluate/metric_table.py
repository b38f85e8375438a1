"""The table of metrics. A new one is an entry here and a function that gives its statistics."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from blip2cli.evaluate import answer_match, bleu, cider, meteor, rouge, yes_no
from blip2cli.evaluate.caption_tokens import CaptionTokens
from blip2cli.evaluate.key_index import Numbers
from blip2cli.evaluate.predictions import Predictions
from blip2cli.evaluate.references import Kind, References
from blip2cli.evaluate.statistics import Statistics, mean_of
from blip2cli.evaluate.vqa_accuracy import FEWEST_ANSWERS, vqa_score, vqa_score_2017


@dataclass(frozen=True)
class Scoring:
    """What metrics are computed from; captions are tokenized once for all of them."""

    predictions: Predictions
    meteor_jar: str | None = None

    @cached_property
    def tokens(self) -> CaptionTokens:
        return CaptionTokens.of(self.predictions.pairs())


@dataclass(frozen=True)
class Metric:
    """One metric: its name as on the command line, and how it is computed."""

    name: str
    kind: Kind
    figures: tuple[str, ...]
    statistics: Callable[[Scoring], Statistics]
    # None, or why the metric says nothing about these references.
    unfit: Callable[[References], str | None] = lambda references: None
    score: bool = False  # a mean over rows, so that it can be taken over answered rows only


def _bleu(scoring: Scoring) -> Statistics:
    return Statistics(bleu.NAMES, bleu.statistics(scoring.tokens), bleu.figures)


def _meteor(scoring: Scoring) -> Statistics:
    return meteor.statistics(scoring.predictions.pairs(), scoring.meteor_jar or "")


def _answers(name: str, rule: Callable[[str, Sequence[str]], float]) -> Metric:
    """A metric of answers that is the mean of a rule; rows without an answer score 0."""

    def statistics(scoring: Scoring) -> Statistics:
        pairs = scoring.predictions.pairs()
        scores: Numbers = np.array([rule(text, references) for text, references in pairs])
        return mean_of(name, scores * scoring.predictions.answered)

    unfit = _few_answers if name.startswith("vqa") else Metric.unfit
    return Metric(name, "answers", (name,), statistics, unfit, score=True)


def _few_answers(references: References) -> str | None:
    if references.wrong is not None:
        return "it compares with several answers of people, and these are verdicts"
    if references.most_texts >= FEWEST_ANSWERS:
        return None
    return f"it compares with several answers of people, and there are {references.most_texts}"


def _not_yes_no(references: References) -> str | None:
    return None if yes_no.all_yes_or_no(references) else "the references are not all yes or no"


METRICS: dict[str, Metric] = {
    one.name: one
    for one in (
        Metric("bleu", "captions", bleu.NAMES, _bleu),
        Metric("meteor", "captions", ("meteor",), _meteor),
        Metric("rouge", "captions", ("rouge",), lambda s: mean_of("rouge", rouge.scores(s.tokens))),
        Metric("cider", "captions", ("cider",), lambda s: mean_of("cider", cider.scores(s.tokens))),
        _answers("vqa", vqa_score),
        _answers("vqa_2017", vqa_score_2017),
        _answers("exact", answer_match.exact),
        _answers("normalized", answer_match.normalized),
        Metric(
            "yesno", "answers", yes_no.NAMES, lambda s: yes_no.statistics(s.predictions),
            _not_yes_no,
        ),
    )
}  # fmt: skip

QUICK_CAPTION_METRICS = ("bleu", "rouge", "cider")  # without METEOR, which would start Java
