"""The options of evaluations."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

from blip2cli.errors import OptionError, option
from blip2cli.options.columns import ReferenceOptions
from blip2cli.options.declare import METRICS, OUTPUT, SOURCE, OptionGroup, setting

MetricName = Literal[
    "bleu", "meteor", "rouge", "cider", "vqa", "vqa_2017", "exact", "normalized", "yesno", "recall"
]
_METRIC_NAMES = MetricName.__args__  # type: ignore[attr-defined] # a Literal has them

COMPARE_HELP = "Another output, which ROWS are compared with; repeatable."

_source = partial(setting, panel=SOURCE)
_metrics = partial(setting, panel=METRICS)


@dataclass(frozen=True)
class MetricsOptions(OptionGroup):
    """What the output of a run is compared with once it is finished."""

    references: str | None = _metrics(
        None,
        f"Compare OUT with these captions at the end, as {option('against')} of eval does, and "
        "print BLEU, ROUGE-L and CIDEr.",
        metavar="FILE",
    )


@dataclass(frozen=True)
class EvalOptions(ReferenceOptions):
    """What is evaluated against what."""

    rows: tuple[str, ...] = _source(
        (),
        "Outputs of caption or ask that are one, or of embed of images and of texts.",
        positional=True,
        metavar="ROWS...",
        brief="Outputs of caption, ask or embed.",
    )
    compare: tuple[str, ...] = _source((), COMPARE_HELP, metavar="ROWS", brief=True)
    metric: tuple[str, ...] = _metrics(
        (),
        f"Compute only this: {', '.join(_METRIC_NAMES)}; repeatable.",
        metavar="NAME",
        brief=True,
        offers=_METRIC_NAMES,
    )
    by: tuple[str, ...] = _metrics(
        (),
        "Also for each value of a column of ROWS or of the references, such as question_type; "
        "repeatable.",
        metavar="COLUMN",
        brief="Also for each value of a column; repeatable.",
        columns_of=("rows", "against"),
    )
    fail_under: tuple[str, ...] = _metrics(
        (),
        "Exit with 1 when a figure is lower, such as vqa=0.6; repeatable.",
        metavar="NAME=X",
        brief=True,
    )
    meteor_jar: str | None = _metrics(
        None,
        "meteor-1.5.jar, where METEOR is wanted; it needs Java.",
        metavar="FILE",
        default_help="that of an installed pycocoevalcap",
    )
    json: bool = setting(False, "Print JSON for other programs.", panel=OUTPUT, brief=True)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in self.metric:
            if name not in _METRIC_NAMES:
                raise OptionError(
                    "metric",
                    f"{option('metric')} has no value {name!r}",
                    f"choose one of {', '.join(_METRIC_NAMES)}",
                )
        _ = self.least

    @property
    def least(self) -> dict[str, float]:
        """The lowest values of ``fail_under``, by figure. Raises OptionError."""
        found = {}
        for text in self.fail_under:
            name, _, value = text.partition("=")
            try:
                lowest = float(value)
            except ValueError:
                lowest = math.nan
            found[name.strip().lower()] = lowest
            if not name.strip() or not math.isfinite(lowest):
                raise OptionError(
                    "fail_under",
                    f"{option('fail_under')} {text} is no figure and its lowest value",
                    "write it as in vqa=0.6",
                )
        return found
