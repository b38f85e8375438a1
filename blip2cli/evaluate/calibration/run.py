"""Calibrates an output: reads rows and labels, fits, judges, and says which norm is best."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from blip2cli.errors import ModelError, OptionError, SourceError, option
from blip2cli.evaluate.bootstrap import figures_with_intervals
from blip2cli.evaluate.calibration.candidates import Candidate, folds_of
from blip2cli.evaluate.calibration.choose import Chosen, Compared, choose_curve, choose_norm
from blip2cli.evaluate.calibration.labelled import Labelled, read_labelled
from blip2cli.evaluate.calibration.measures import (
    design_effect,
    measures,
    reliability,
    threshold_lines,
)
from blip2cli.evaluate.evaluation import Figure
from blip2cli.evaluate.key_index import Numbers
from blip2cli.evaluate.match_rows import RowMatcher
from blip2cli.evaluate.read_references import read_references
from blip2cli.evaluate.read_rows import Table
from blip2cli.evaluate.run import check_order, match_notes
from blip2cli.evaluate.statistics import mean_of
from blip2cli.model.checkpoint.resolve import local_checkpoint
from blip2cli.options import CalibrateOptions, ModelOptions, Norm
from blip2cli.sinks.settings import Settings, weights_of, without_adapters
from blip2cli.tasks.calibration import FORMAT, token_counter

FEWEST_LABELS = 50
_DECIMALS = 6


@dataclass(frozen=True)
class Calibrated:
    """What was found: the calibration as it is written, and what is said beside it."""

    calibration: dict[str, Any]
    accuracy: Figure  # with its interval
    compared: tuple[Compared, ...]
    counts: dict[str, int]
    notes: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        return {
            "calibration": self.calibration,
            "accuracy": self.accuracy.as_dict(),
            "compared": {one.name: one.as_dict() for one in self.compared},
            "counts": self.counts,
            "notes": list(self.notes),
        }


def calibrate(options: CalibrateOptions) -> Calibrated:
    """Fit a calibration to ``options.rows``. Raises UserError, RunError; writes nothing."""
    if options.against is None:
        raise OptionError(
            "against",
            "There is nothing to compare with",
            f"give labels with {option('against')}",
        )
    rows = Table.of("rows", options.rows)
    check_order(rows, options.against)
    references = read_references(options.against, column=options.reference_column)
    matcher = RowMatcher(rows, references, options)
    labelled = read_labelled(matcher)
    count = len(labelled.images)
    if count < FEWEST_LABELS or len(np.unique(labelled.images)) < 2:
        raise SourceError(
            "against",
            f"{references.path!r} has labels of {count} rows, and a calibration needs "
            f"{FEWEST_LABELS} or more, of several images",
            "label more; some hundreds are a start",
        )
    settings = _settings(rows)
    notes = [*references.notes, *match_notes(matcher.counts, references)]
    if labelled.unscored:
        notes.append(
            f"{labelled.unscored} rows without a probability, or with a guess that nobody looked "
            "at, are left out."
        )
    written, chosen = fit(labelled, settings, options.norm)
    best = chosen.best
    shown = mean_of("accuracy", np.append(best.correct, np.zeros(labelled.unanswered)))
    images = np.append(labelled.images, labelled.unanswered_images)
    (accuracy,) = figures_with_intervals([shown], images)
    return Calibrated(
        written,
        Figure(*accuracy),
        chosen.compared,
        matcher.counts.as_dict() | {"labels": count, "unanswered": labelled.unanswered},
        (*notes, *chosen.notes),
    )


def fit(
    labelled: Labelled, settings: Settings | None = None, wanted: Norm | None = None
) -> tuple[dict[str, Any], Chosen]:
    """A calibration as it is written, and the choice behind it; ``wanted`` is the norm of choices.

    Raises OptionError for one that the rows do not tell.
    """
    folds = folds_of(labelled.images)
    rows = settings.rows if settings is not None else {}
    if labelled.choices:
        chosen = choose_norm(labelled, folds, str(rows.get("choice_norm") or "sum"), wanted)
    elif wanted is not None:
        raise OptionError(
            "norm",
            f"{option('norm')} is about choices, and the rows hold written texts",
            "leave it out",
        )
    else:
        chosen = choose_curve(labelled, folds, _token_counter(settings))
    return _calibration(chosen.best, labelled, folds, settings), chosen


def _calibration(
    best: Candidate, labelled: Labelled, folds: Numbers, settings: Settings | None
) -> dict[str, Any]:
    rows = settings.rows if settings is not None else {}
    judged = {
        name: measures(confidence, best.correct, folds, labelled.unanswered)
        for name, confidence in (("before", best.before), ("after", best.after))
    }
    found = {
        "format": FORMAT,
        "kind": "choices" if labelled.choices else "texts",
        "norm": best.norm,
        "match": bool(rows.get("match")),
        "task": rows.get("task"),
        "weights": settings.weights if settings is not None else None,
        "temperature": best.temperature,
        "questions": best.questions,
        "curve": best.curve,
        "labels": len(labelled.images),
        "images": len(np.unique(labelled.images)),
        "folds": len(np.unique(folds)),
        "design_effect": design_effect(best.correct, labelled.images),
        **judged,
        "reliability": {
            "before": reliability(best.before, best.correct),
            "after": reliability(best.after, best.correct),
        },
        "thresholds": threshold_lines(best.ranked, best.correct),
    }
    exact = ("questions", "curve")  # as the thresholds were found with them
    return {name: value if name in exact else _rounded(value) for name, value in found.items()}


def _settings(rows: Table) -> Settings | None:
    """What the rows say of their making. Raises SourceError where they are of several kinds."""
    each = [Table(rows.field, (path,)).settings for path in rows.paths]
    first = each[0]
    for other in each[1:]:
        if (first is None) != (other is None) or (
            first is not None
            and other is not None
            and (first.weights != other.weights or not first.fits(other))
        ):
            raise SourceError(
                "rows",
                f"{str(rows)!r} were made by several models, or with several settings",
                "calibrate each by itself",
            )
    return first


def _token_counter(settings: Settings | None) -> Callable[[str], int] | None:
    """What counts the tokens of a text as the model that wrote it does; None: it is not here."""
    from blip2cli.model.tokenizer.text import read_tokenizer

    for folder in _model_folders(settings):
        with contextlib.suppress(ModelError, OSError):
            return token_counter(read_tokenizer(folder, plain=True))
    return None


def _model_folders(settings: Settings | None) -> Iterator[Path]:
    """Where the model of the settings may be on this machine."""
    if settings is None or not isinstance(name := settings.rows.get("model"), str):
        return
    revision = settings.rows.get("revision")
    checkpoint = local_checkpoint(ModelOptions(name, revision))
    if checkpoint is not None:
        yield checkpoint.path
    elif settings.weights is not None and settings.weights.startswith("hub:"):
        from huggingface_hub import try_to_load_from_cache

        commit = without_adapters(weights_of(settings)[0]).removeprefix("hub:")
        found = try_to_load_from_cache(name, "config.json", revision=commit)
        if isinstance(found, str):
            yield Path(found).parent


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, _DECIMALS)
    if isinstance(value, dict):
        return {key: _rounded(each) for key, each in value.items()}
    if isinstance(value, list):
        return [_rounded(each) for each in value]
    return value
