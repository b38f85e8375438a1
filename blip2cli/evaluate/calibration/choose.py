"""Which way to calibrate is best: the norm of choices, the curve of written texts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from blip2cli.errors import OptionError, option
from blip2cli.evaluate.bootstrap import paired_differences
from blip2cli.evaluate.calibration.candidates import Candidate, of_choices, of_texts
from blip2cli.evaluate.calibration.labelled import ASKED, Labelled
from blip2cli.evaluate.calibration.measures import risk_coverage_area
from blip2cli.evaluate.evaluation import Figure
from blip2cli.evaluate.key_index import Numbers
from blip2cli.evaluate.statistics import mean_of
from blip2cli.options import Norm


@dataclass(frozen=True)
class Compared:
    """A way that was tried: what it is called, and how it does on labels that were held out."""

    name: str
    accuracy: float  # of answered rows
    brier: float
    risk_coverage_area: float
    difference: Figure | None = None  # in accuracy, to that of the rows

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        names = ("accuracy", "brier", "risk_coverage_area")
        found: dict[str, Any] = {name: getattr(self, name) for name in names}
        return found | ({"difference": self.difference.as_dict()} if self.difference else {})


@dataclass(frozen=True)
class Chosen:
    """The best way, all that were tried, and sentences about the choice."""

    best: Candidate
    compared: tuple[Compared, ...]
    notes: tuple[str, ...]


def choose_norm(labelled: Labelled, folds: Numbers, mine: str, wanted: Norm | None) -> Chosen:
    """The norm ``wanted``, or that of the rows, ``mine``, unless another one answers better.

    Better is what is right more often, with the interval of the difference above 0. Raises
    OptionError for one that the rows do not tell.
    """
    keys = {norm: norm for norm in labelled.choices if norm != ASKED}
    keys.setdefault(mine, ASKED)
    with_scores = f"ask with {option('choice_scores')}"
    if labelled.verdicts:
        with_scores += ", and label the right answers: verdicts say nothing of other ones"
    if wanted is not None and wanted not in keys:
        raise OptionError(
            "norm",
            f"{option('norm')} {wanted}: the rows were made with {mine}, and tell nothing "
            "of others",
            f"ask with {option('choice_norm')} {wanted}, or {with_scores}",
        )
    several = {norm: of_choices(labelled, folds, key, norm) for norm, key in keys.items()}
    compared = tuple(
        _compared(norm, one, labelled, None if norm == mine else several[mine])
        for norm, one in several.items()
    )
    better = [one for one in compared if one.difference is not None and one.difference.low > 0]
    best = max(better, key=lambda one: one.accuracy).name if better else mine
    if len(several) == 1:
        note = f"Choices were compared by {mine}; to have other norms compared, {with_scores}."
    elif better:
        note = f"The best norm is {best}."
    else:
        note = f"No norm is better than {mine} beyond doubt."
    return Chosen(several[wanted or best], compared, (note,))


def choose_curve(
    labelled: Labelled, folds: Numbers, count_tokens: Callable[[str], int] | None
) -> Chosen:
    """The curve whose confidence has the smallest squared error on the folds held out."""
    several = list(of_texts(labelled, folds, count_tokens))
    compared = tuple(
        _compared(f"{one.norm}, {(one.curve or {})['method']}", one, labelled, None)
        for one in several
    )
    notes: tuple[str, ...] = ()
    if count_tokens is None:
        why = "the tokenizer of the model, which counts the tokens of a text, is not here"
        notes = (f"Only the mean log-probability was tried: {why}.",)
    best = min(range(len(several)), key=lambda number: compared[number].brier)
    return Chosen(several[best], compared, notes)


def _compared(name: str, one: Candidate, labelled: Labelled, other: Candidate | None) -> Compared:
    difference = None
    if other is not None:
        theirs, mine = (mean_of("accuracy", each.correct) for each in (other, one))
        (values,) = paired_differences([theirs], [mine], labelled.images)
        difference = Figure(*values)
    return Compared(
        name,
        float(one.correct.mean()),
        one.brier,
        risk_coverage_area(one.after, one.correct, labelled.unanswered),
        difference,
    )
