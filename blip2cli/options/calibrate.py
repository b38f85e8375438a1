"""The options of calibrations: how one is made, and how a run uses it."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from blip2cli.errors import OptionError, option
from blip2cli.options.columns import ReferenceOptions
from blip2cli.options.declare import (
    CONFIDENCE,
    OUTPUT,
    SOURCE,
    OptionGroup,
    declare,
    setting,
)
from blip2cli.options.run import OVERWRITE_HELP
from blip2cli.options.text import Norm

_source = partial(setting, panel=SOURCE)
_confidence = partial(
    declare, None, panel=CONFIDENCE, shapes_rows=True, about_images=False, metavar="P"
)


@dataclass(frozen=True)
class CalibrationOptions(OptionGroup):
    """How sure a text has to be."""

    # A file, of which the digest is compared.
    calibration: str | None = declare(
        None,
        "Give every row its confidence, by this file of blip2cli calibrate.",
        panel=CONFIDENCE,
        shapes_rows=False,
        about_images=False,
        metavar="FILE",
        brief="A file of blip2cli calibrate: rows get a confidence.",
    )
    min_precision: float | None = _confidence(
        help="Abstain below the confidence above which this share of answers was right, with 95 % "
        "certainty; such as 0.95.",
        brief="Abstain where fewer answers are right, such as 0.95.",
    )
    min_confidence: float | None = _confidence(help="Abstain below this confidence, 0 to 1.")

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("min_precision", "min_confidence"):
            value = getattr(self, name)
            if value is None:
                continue
            if not 0 < value < 1:
                raise OptionError(name, f"{option(name)} must be between 0 and 1, not {value:g}")
            if self.calibration is None:
                raise OptionError(
                    name,
                    f"{option(name)} needs to know how sure an answer is",
                    f"give {option('calibration')} a file that 'blip2cli calibrate' made",
                )
        if self.min_precision is not None and self.min_confidence is not None:
            raise OptionError(
                "min_confidence",
                f"{option('min_precision')} and {option('min_confidence')} exclude each other",
                "give one of them",
            )


@dataclass(frozen=True)
class CalibrateOptions(ReferenceOptions):
    """What is calibrated against what."""

    rows: tuple[str, ...] = _source(
        (),
        "Outputs of ask or caption that are one.",
        positional=True,
        metavar="ROWS...",
        brief=True,
    )
    norm: Norm | None = setting(
        None,
        "Calibrate choices compared in this way.",
        panel=CONFIDENCE,
        default_help="that of the rows, unless their choice_scores show a better one",
        brief="Choices compared in this way: {choices}.",
    )
    out: str | None = setting(
        None,
        "The calibration to write.",
        panel=OUTPUT,
        flag="--output",
        short="-o",
        metavar="OUT",
        brief=True,
    )
    overwrite: bool = setting(False, OVERWRITE_HELP, panel=OUTPUT, brief=True)
    json: bool = setting(False, "Print JSON for other programs.", panel=OUTPUT, brief=True)
