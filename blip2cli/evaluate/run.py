"""Evaluates an output: reads rows and references, computes metrics and their intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import numpy as np

from blip2cli.errors import OptionError, SourceError, option
from blip2cli.evaluate import meteor
from blip2cli.evaluate.bootstrap import figures_with_intervals, paired_differences
from blip2cli.evaluate.cider import FEWEST_IMAGES
from blip2cli.evaluate.evaluation import Evaluation, Figure, Group
from blip2cli.evaluate.key_index import Numbers
from blip2cli.evaluate.match_rows import MatchCounts, RowMatcher
from blip2cli.evaluate.metric_table import METRICS, Metric, Scoring
from blip2cli.evaluate.predictions import Predictions
from blip2cli.evaluate.read_references import read_references
from blip2cli.evaluate.read_rows import Table
from blip2cli.evaluate.references import References
from blip2cli.evaluate.statistics import Statistics, mean_of
from blip2cli.options import EvalOptions

_MOST_GROUPS = 1000  # values of a column, each with its interval


def evaluate(options: EvalOptions) -> Evaluation:
    """The figures of ``options.rows``. Raises UserError, RunError."""
    rows = Table.of("rows", options.rows)
    if "embedding" in rows.columns:
        from blip2cli.evaluate.recall import evaluate_vectors

        found = evaluate_vectors(rows, options)
    else:
        if options.against is None:
            raise OptionError(
                "against",
                "There is nothing to compare with",
                f"give references with {option('against')}",
            )
        references = read_references(
            options.against, column=options.reference_column, more=options.by
        )
        check_order(rows, options.against)
        found = evaluate_rows(rows, references, options)
    _check_names(options.least, found.figures)
    return found


def evaluate_rows(rows: Table, references: References, options: EvalOptions) -> Evaluation:
    """The figures of rows with a text. Raises UserError, RunError."""
    predictions = _predictions(rows, references, options)
    kind = row_kind(rows, references, options)
    notes = [*references.notes, *match_notes(predictions.counts, references)]
    # Verdicts say of a caption, too, whether it is right.
    judged_as = kind if references.wrong is None else "answers"
    metrics, jar, why_not = _chosen(judged_as, references, predictions, options)
    notes += why_not
    several = _statistics(metrics, predictions, jar)
    images = predictions.images
    figures = _figures(several, images)
    image_count = len(np.unique(images))
    if image_count < FEWEST_IMAGES and any(one.name == "cider" for one in metrics):
        notes.append(
            f"CIDEr means little for {image_count} images: its weights come from how many images' "
            "references hold a word, so take 50 or more."
        )
    groups = tuple(_groups(several, predictions, options.by))
    other: tuple[Figure, ...] = ()
    differences: tuple[Figure, ...] = ()
    common = 0
    if options.compare:
        others = _predictions(Table.of("compare", options.compare), references, options)
        notes += [f"Compared: {note}" for note in match_notes(others.counts, references)]
        mine, theirs = predictions.common(others)
        common = len(mine)
        if not common:
            raise SourceError(
                "compare", "The two outputs have no reference in common", "check them"
            )
        both = [_statistics(metrics, each, jar) for each in (mine, theirs)]
        both = [each[: min(map(len, both))] for each in both]  # one of them may have abstained
        other = _figures(both[1], mine.images)
        found = paired_differences(both[1], both[0], mine.images)
        differences = tuple(Figure(*each) for each in found)
    return Evaluation(
        kind, len(predictions), image_count, figures, groups, predictions.counts.as_dict(),
        tuple(notes), other, differences, common,
    )  # fmt: skip


def match_notes(counts: MatchCounts, references: References) -> Iterator[str]:
    """Sentences about rows and references that have no counterpart, or no text."""
    for count, what in (
        (counts.failed, "belong to images that failed; they count as empty texts"),
        (counts.null, "have no text; they count as empty texts"),
        (counts.abstained, "abstained; they count as wrong, but where only answered rows do"),
    ):
        if count:
            yield f"{count} of {counts.matched} rows {what}."
    left_over, missing = counts.left_over, counts.missing
    if left_over.count:
        yield f"{_rows(left_over.count)} without a reference, left out: {left_over}."
    if counts.unjudged.count:
        yield (
            f"{_rows(counts.unjudged.count)} left out, as all that is known is that another text "
            f"was wrong: {counts.unjudged}."
        )
    if counts.doubled.count:
        yield (
            f"{_rows(counts.doubled.count)} about what an earlier row is about, left out: "
            f"{counts.doubled}."
        )
    if missing.count:
        yield (
            f"{missing.count} of {len(references)} references have no row, and are not counted: "
            f"{missing}."
        )
    if counts.doubled.count > counts.matched and references.most_texts == 1:
        yield "Most rows are doubled, and references have one text each: are the files swapped?"


def _rows(count: int) -> str:
    return "1 row" if count == 1 else f"{count} rows"


def _predictions(rows: Table, references: References, options: EvalOptions) -> Predictions:
    matcher = RowMatcher(rows, references, options)
    ours = [name for name in options.by if name in rows.columns]
    for name in options.by:
        if name not in ours and name not in references.columns:
            raise OptionError(
                "by",
                f"Neither rows nor references have a column {name}",
                f"the rows have {', '.join(rows.columns)}",
            )
    return Predictions.read(matcher, ours)


def row_kind(rows: Table, references: References, options: EvalOptions) -> str:
    """Captions or answers, by the rows. Raises SourceError where the references are others."""
    if options.text_column is not None:
        return references.kind or ("answers" if "question" in rows.columns else "captions")
    kind = "captions" if "caption" in rows.columns else "answers"
    if references.kind not in (kind, None):
        raise SourceError(
            "against",
            f"The rows hold {kind}, and {references.path!r} holds {references.kind}",
            "give references of the same kind",
        )
    return kind


def check_order(rows: Table, against: str) -> None:
    """Raise SourceError where the references are an output of ours, and the rows are none."""
    if against.lower().endswith((".json", ".json.gz")):
        return
    table = Table.of("against", (against,))
    if "logprob" in table.columns and "logprob" not in rows.columns and table.settings is not None:
        raise SourceError(
            "against",
            f"{against!r} is an output of a run, and {str(rows)!r} is none: they look swapped",
            f"the output comes first, and the references behind {option('against')}",
        )


def _chosen(
    kind: str, references: References, predictions: Predictions, options: EvalOptions
) -> tuple[list[Metric], str | None, list[str]]:
    """The metrics to compute, METEOR's jar, and why some are left out."""
    jar = meteor.find_jar(options.meteor_jar)
    notes, chosen = [], []
    for name in dict.fromkeys(options.metric):
        metric = METRICS.get(name)
        if metric is None or metric.kind != kind:
            raise OptionError(
                "metric",
                f"{option('metric')} {name} is not about {kind}",
                f"choose of {', '.join(one.name for one in METRICS.values() if one.kind == kind)}",
            )
        if (why := metric.unfit(references)) is not None:
            raise OptionError("metric", f"{option('metric')} {name} says nothing here: {why}")
        chosen.append(metric)
    if not chosen:
        fitting = (one for one in METRICS.values() if one.kind == kind)
        chosen = [one for one in fitting if one.unfit(references) is None]
    if any(one.name == "meteor" for one in chosen):
        missing = None
        if jar is None:
            missing = "METEOR is missing: it needs Java and meteor-1.5.jar, as pycocoevalcap has it"
        elif "meteor" not in options.metric and len(predictions) > meteor.MOST_ROWS:
            missing = f"METEOR was left out, as it takes long for {len(predictions)} rows"
        if missing is not None and "meteor" in options.metric:
            raise OptionError("metric", missing, f"install them, or give {option('meteor_jar')}")
        if missing is not None:
            notes.append(f"{missing}.")
            chosen = [one for one in chosen if one.name != "meteor"]
    return chosen, jar, notes


def _statistics(
    metrics: Sequence[Metric], predictions: Predictions, jar: str | None
) -> list[Statistics]:
    """Those of all metrics; where rows abstained, also of the answered ones, and the coverage."""
    scoring = Scoring(predictions, jar)
    several = [metric.statistics(scoring) for metric in metrics]
    if predictions.abstained.any():
        spoke = (~predictions.abstained).astype(float)
        several += [
            Statistics((f"{metric.name}_selective",), one.values * spoke[:, None], one.figures)
            for metric, one in zip(metrics, several, strict=True)
            if metric.score
        ]
        several.append(mean_of("coverage", spoke))
    return several


def _figures(several: list[Statistics], images: Numbers) -> tuple[Figure, ...]:
    return tuple(Figure(*found) for found in figures_with_intervals(several, images))


def _groups(
    several: list[Statistics], predictions: Predictions, columns: Sequence[str]
) -> Iterator[Group]:
    """The figures of the rows with each value of each column, in the order of the values."""
    types = predictions.references.columns
    by_type = [name for name in ("question_type", "answer_type") if name in types]
    for column in dict.fromkeys((*columns, *by_type)):
        if column in predictions.columns:
            values = np.array(predictions.columns[column], object)
        else:
            texts = cast("list[str | None]", types[column].to_pylist())
            values = np.array([texts[number] or "" for number in predictions.numbers], object)
        if column not in columns and not values.astype(bool).any():
            continue
        if len(set(values)) > _MOST_GROUPS:
            raise OptionError(
                "by",
                f"The column {column} has {len(set(values))} values, each of which would be "
                "evaluated",
                f"name one with at most {_MOST_GROUPS}",
            )
        for value in sorted(set(values)):
            chosen = np.flatnonzero(values == value)
            part = [Statistics(one.names, one.values[chosen], one.figures) for one in several]
            figures = _figures(part, predictions.images[chosen])
            yield Group(column, value or "(none)", len(chosen), figures)


def _check_names(least: dict[str, float], figures: Sequence[Figure]) -> None:
    names = [one.name for one in figures]
    for name in least:
        if name not in names:
            raise OptionError(
                "fail_under",
                f"{option('fail_under')} {name}: there is no such figure",
                f"the figures are {', '.join(names)}",
            )
