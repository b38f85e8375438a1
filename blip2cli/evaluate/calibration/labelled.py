"""Rows with labels: how likely the model found each text, and whether it is right."""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from blip2cli.errors import SourceError
from blip2cli.evaluate.answer_match import normalized
from blip2cli.evaluate.calibration.temperature import Choices
from blip2cli.evaluate.key_index import Codes, Numbers
from blip2cli.evaluate.match_rows import RowMatcher
from blip2cli.evaluate.read_rows import Table
from blip2cli.evaluate.references import References
from blip2cli.evaluate.vqa_accuracy import FEWEST_ANSWERS, vqa_score
from blip2cli.options import Norm
from blip2cli.tasks.calibration import SMALLEST
from blip2cli.tasks.choice_norms import normalized_scores

NORMS: tuple[Norm, ...] = ("sum", "mean", "pmi", "prior")
ASKED = ""  # stands for the norm that the rows were made with
_COLUMNS = ("probabilities", "logprob", "guess", "question", "choice_scores")
_Row = Mapping[str, Any]


@dataclass(frozen=True)
class Labelled:
    """Texts that are labelled, in the order of the labels; arrays have one length."""

    images: Numbers  # int64, numbers of images
    questions: Numbers  # int64, numbers of questions
    question_texts: Sequence[str]  # by their number
    texts: Sequence[str]  # of written texts
    logprobs: Numbers  # float64, mean log-probability of a token
    # By norm how right answers are, float64, 0 to 1, and what they were chosen from; those of
    # ``choice_scores`` beside those of the rows, which are ``ASKED``.
    correct: Mapping[str, Numbers]
    choices: Mapping[str, Choices]  # none: written texts
    # Rows beside them that are null, or of images that failed: int64, numbers of their images.
    unanswered_images: Numbers
    unscored: int  # rows that do not say how likely they are, left out
    verdicts: bool = False  # labels are verdicts, which say nothing of the answers of other norms

    @property
    def unanswered(self) -> int:
        """How many rows have no answer."""
        return len(self.unanswered_images)

    def only(self, rows: Numbers) -> Labelled:
        """Some of them, by their numbers; the rest is as if it were not labelled."""
        return Labelled(
            self.images[rows],
            self.questions[rows],
            self.question_texts,
            [self.texts[i] for i in rows] if self.texts else [],
            self.logprobs[rows] if self.texts else self.logprobs,
            {norm: correct[rows] for norm, correct in self.correct.items()},
            {norm: choices.only(rows) for norm, choices in self.choices.items()},
            self.unanswered_images[:0],
            0,
            self.verdicts,
        )


@dataclass
class _Answers:
    """The answers by one norm, row by row."""

    correct: array[float] = field(default_factory=lambda: array("d"))
    scores: array[float] = field(default_factory=lambda: array("d"))
    sizes: array[int] = field(default_factory=lambda: array("q"))
    chosen: array[int] = field(default_factory=lambda: array("q"))

    def add(self, scores: Sequence[float], chosen: int, correct: float) -> None:
        self.scores.extend(scores)
        self.sizes.append(len(scores))
        self.chosen.append(chosen)
        self.correct.append(correct)

    def choices(self, order: Numbers) -> Choices:
        sizes = np.frombuffer(self.sizes, np.int64)
        chosen = np.frombuffer(self.chosen, np.int64)
        return Choices(np.frombuffer(self.scores), np.cumsum(sizes) - sizes, chosen).only(order)


def read_labelled(matcher: RowMatcher) -> Labelled:
    """Read all rows that have a label. Raises SourceError.

    A row that abstained counts with its guess.
    """
    references, names = matcher.references, Codes()
    closed = "probabilities" in matcher.table.columns
    needed = "probabilities" if closed else "logprob"
    verdicts = references.wrong is not None
    norms = NORMS if closed and not verdicts else ()
    answers = {ASKED: _Answers()} | {norm: _Answers() for norm in norms}
    numbers, questions, logprobs = array("q"), array("q"), array("d")
    unanswered: list[int] = []  # numbers of references
    texts: list[str] = []
    unscored = 0
    for batch in matcher.batches(_COLUMNS):
        with _blaming_rows(matcher.table):
            for at, number in enumerate(batch.numbers.tolist()):
                row = {name: batch.columns[name][at] for name in _COLUMNS}
                text = batch.texts[at] if batch.answered[at] else row["guess"]
                if text is None:
                    unanswered.append(number)
                    continue
                text = str(text)
                if row[needed] is None or not references.judges(number, text.strip()):
                    unscored += 1
                    continue
                theirs = references.texts(number)
                numbers.append(number)
                questions.append(names.of(str(row["question"] or "")))
                if closed:
                    answers[ASKED].add(*_asked(row, text), score_text(text, theirs, references))
                    for norm in [norm for norm in answers if norm != ASKED]:
                        found = _by_norm(norm, row["choice_scores"])
                        if found is None:
                            del answers[norm]  # not all rows tell it
                        else:
                            score = score_text(found[2], theirs, references)
                            answers[norm].add(found[0], found[1], score)
                else:
                    texts.append(text)
                    logprobs.append(row["logprob"])
                    answers[ASKED].add((), 0, score_text(text, theirs, references))
    if not numbers:
        raise SourceError(
            "rows",
            f"No row of {str(matcher.table)!r} that is labelled has a text and its {needed}",
            "give rows of ask or caption as they were written",
        )
    order = np.argsort(np.frombuffer(numbers, np.int64), kind="stable")
    return Labelled(
        matcher.images[np.frombuffer(numbers, np.int64)[order]],
        np.frombuffer(questions, np.int64)[order],
        list(names.keys()),
        [texts[i] for i in order] if texts else [],
        np.frombuffer(logprobs)[order] if texts else np.zeros(0),
        {norm: np.frombuffer(one.correct)[order] for norm, one in answers.items()},
        {norm: one.choices(order) for norm, one in answers.items() if closed},
        matcher.images[np.array(unanswered, np.int64)],
        unscored,
        verdicts,
    )


@contextmanager
def _blaming_rows(table: Table) -> Iterator[None]:
    """Raise SourceError for values of another type than those that runs write."""
    try:
        yield
    except (TypeError, AttributeError, LookupError, ValueError, ArithmeticError):
        raise SourceError(
            "rows",
            f"{str(table)!r} holds probabilities, log-probabilities or choice_scores in another "
            "form than ask and caption write them",
            "give rows as they were written",
        ) from None


def score_text(text: str, theirs: Sequence[str], references: References) -> float:
    """VQA accuracy where several people answered, else whether it is one of the references,
    normalized."""
    if references.kind == "answers" and references.wrong is None and len(theirs) >= FEWEST_ANSWERS:
        return vqa_score(text, theirs)
    return normalized(text, theirs)


def _asked(row: _Row, text: str) -> tuple[list[float], int]:
    """The scores behind the probabilities of a row, and which choice is its answer."""
    choices = row["probabilities"]
    for at, one in enumerate(choices):
        if one["choice"] == text:
            return [math.log(max(one["probability"], SMALLEST)) for one in choices], at
    raise SourceError(
        "rows", f"The answer {text!r} is none of its row's choices", "give rows as they were made"
    )


def _by_norm(norm: Any, choices: Sequence[_Row] | None) -> tuple[list[float], int, str] | None:
    """The scores of choices by a norm, the best one's place, and it; None: not known."""
    if not choices:
        return None
    logprobs, tokens, blank = (
        [one[name] for one in choices] for name in ("logprob", "tokens", "blank_logprob")
    )
    if norm == "pmi" and None in blank:
        return None
    scores = normalized_scores(norm, logprobs, tokens, blank)
    best = max(range(len(scores)), key=scores.__getitem__)
    return scores, best, choices[best]["choice"]
