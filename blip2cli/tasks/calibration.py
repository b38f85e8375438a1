"""A calibration, as a run uses it: how sure an answer or a caption is, and whether to keep it.

``blip2cli calibrate`` writes the file, from rows and labels. A closed question's confidence is the
share of its answer among the choices, their scores divided by a temperature, and perhaps a curve
over that; that of a text is a curve over its log-probability.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, get_args

from blip2cli.errors import OptionError, option
from blip2cli.model.checkpoint.ranker import RankerSpec, identity_of_both
from blip2cli.model.checkpoint.resolve import local_checkpoint
from blip2cli.options import CalibrationOptions, ModelOptions, Norm
from blip2cli.sinks.base import Column
from blip2cli.tasks.base import ABSTAINED, Row
from blip2cli.tasks.precision import lowest_confidence

if TYPE_CHECKING:
    from blip2cli.model.checkpoint.weight_files import Checkpoint
    from blip2cli.model.wrapper import Blip2

FORMAT = 1
CONFIDENCE_DECIMALS = 6
SMALLEST = 1e-300  # a probability that was rounded to 0
SMALLEST_ODDS = 1e-9
_NORMS = {"choices": get_args(Norm), "texts": ("logprob_mean", "logprob_sum")}
_MOST_BYTES = 64 << 20


@dataclass(frozen=True)
class Calibration:
    """What a run needs of a calibration; plain values, so that it can be pickled."""

    path: str = field(compare=False)
    kind: Literal["choices", "texts"]
    norm: str
    task: str | None  # caption or ask; None: not known
    match: bool  # choices were compared by the matching head
    digest: str
    weights: str | None  # of the model, see ``model.checkpoint.identity``
    temperature: float = 1.0
    temperatures: Mapping[str, float] = field(default_factory=dict)  # by question
    curve: Mapping[str, Any] = field(default_factory=dict)
    least: float | None = None  # the confidence below which a run abstains
    options: CalibrationOptions = field(default_factory=CalibrationOptions)

    def with_columns(self, columns: tuple[Column, ...]) -> tuple[Column, ...]:
        """The columns of rows, and behind them those it adds."""
        added = [Column("confidence", "float")]
        if self.least is not None:
            added.append(Column("guess", "string"))
        return (*columns, *(column for column in added if column not in columns))

    def check_weights(
        self, model: ModelOptions, checkpoint: Checkpoint | None, ranker: RankerSpec | None
    ) -> None:
        """Raise ``OptionError`` where a model with other weights made the rows it is from.

        Captions that ``ranker`` picks are others than those of the model by itself.
        """
        weights = None
        with contextlib.suppress(OSError):  # loading the model says what is wrong
            weights = identity_of_both(model, checkpoint, ranker)
        if None not in (self.weights, weights) and self.weights != weights:
            name = model.model if ranker is None else f"{model.model} with {ranker.name}"
            raise OptionError(
                "calibration",
                f"{option('calibration')} {self.path} was made from rows of another model, or of "
                f"another version of it, than {name}",
                "label rows of this model, and calibrate them",
            )

    def check_task(self, task: str, choices: bool, texts: bool) -> None:
        """Raise ``OptionError`` where it is not about all there is: answers to choose from, or
        texts that the command ``task`` writes."""
        if self.task not in (None, task) or (texts if self.kind == "choices" else choices):
            about = {"choices": "answers to choose from", "texts": "texts that are written"}
            raise OptionError(
                "calibration",
                f"{option('calibration')} {self.path} is about {about[self.kind]} by "
                f"'{self.task or task}', and these are not, or not all of them",
                "calibrate rows of the same kind",
            )

    def check_norm(self, norm: str | None, match: bool) -> None:
        """Raise ``OptionError`` where choices are to be compared in another way; ``norm`` None:
        in any."""
        if norm is not None and norm != self.norm:
            raise OptionError(
                "choice_norm",
                f"{option('choice_norm')} is {norm}, and {option('calibration')} {self.path} is "
                f"about {self.norm}",
                f"leave {option('choice_norm')} out",
            )
        if match != self.match:
            raise OptionError(
                "match",
                f"{option('calibration')} {self.path} was made {_with(self.match)} "
                f"{option('match')}, and this run is {_with(match)} it",
                "compare in the same way",
            )

    def add_confidence(self, rows: Sequence[Row], column: str, model: Blip2) -> None:
        """Add ``confidence`` to rows whose text is in ``column``, and ``guess`` where there is a
        threshold: below it the text becomes null.

        ``model`` made the rows: its tokenizer counts the tokens of a text where the curve needs it.
        """
        count_tokens = token_counter(model.codec.tokenizer)
        for row in rows:
            # A caption that fits its image too badly is a guess already.
            guess = row.get("guess") if row[column] is None else row[column]
            if self.kind == "choices":
                confidence = self.of_choices(str(row["question"]), guess, row["probabilities"])
            else:
                confidence = self.of_text(str(guess), row["logprob"], count_tokens)
            row["confidence"] = confidence
            if self.least is not None:
                row["guess"] = guess
                if confidence < self.least:
                    row[column], row["flag"] = None, ABSTAINED

    def of_choices(self, question: str, answer: object, probabilities: Any) -> float:
        """The confidence of ``answer`` among ``probabilities``, as rows hold them."""
        temperature = self.temperatures.get(question, self.temperature)
        scores = [math.log(max(one["probability"], SMALLEST)) for one in probabilities]
        largest = max(scores)
        weights = [math.exp((score - largest) / temperature) for score in scores]
        chosen = [one["choice"] for one in probabilities].index(answer)
        share = weights[chosen] / math.fsum(weights)
        if self.curve:
            share = curve_value(self.curve, log_odds(share))
        return round(share, CONFIDENCE_DECIMALS)

    def of_text(self, text: str, logprob: Any, count_tokens: Callable[[str], int]) -> float:
        """The confidence of a written text, from its mean log-probability."""
        value = float(logprob)
        if self.norm == "logprob_sum":
            value *= count_tokens(text)
        return round(curve_value(self.curve, value), CONFIDENCE_DECIMALS)


def settings_of(calibration: Calibration | None) -> dict[str, object]:
    """What of a calibration shapes rows, for the settings of an output."""
    options = CalibrationOptions() if calibration is None else calibration.options
    return {"calibration": calibration and calibration.digest} | options.settings


def log_odds(share: float) -> float:
    """The logarithm of a share over its rest; finite also at 0 and 1."""
    share = min(max(share, SMALLEST_ODDS), 1 - SMALLEST_ODDS)
    return math.log(share / (1 - share))


def curve_value(curve: Mapping[str, Any], value: float) -> float:
    """The curve at ``value``: a logistic function, or a line between points, flat outside."""
    if curve["method"] == "platt":
        exponent = curve["slope"] * value + curve["intercept"]
        if exponent < 0:
            return math.exp(max(exponent, -700.0)) / (1 + math.exp(max(exponent, -700.0)))
        return 1 / (1 + math.exp(-exponent))
    x, y = curve["x"], curve["y"]
    at = bisect_right(x, value)
    if at in (0, len(x)):
        return float(y[0] if at == 0 else y[-1])
    share = (value - x[at - 1]) / (x[at] - x[at - 1])
    return float(y[at - 1] + share * (y[at] - y[at - 1]))


def token_counter(tokenizer: Any) -> Callable[[str], int]:
    """What counts the tokens of a text as a continuation, with the end behind it."""
    return lambda text: len(tokenizer(f" {text}", add_special_tokens=False)["input_ids"]) + 1


def from_options(options: CalibrationOptions) -> Calibration | None:
    """The calibration of the options, with its threshold; None where there is none.

    Raises OptionError for a file that is none, or shows no such precision.
    """
    path = options.calibration
    if path is None:
        return None
    name = f"{option('calibration')} {path}"
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_BYTES)
        return _parsed(path, data, options)
    except OSError as error:
        raise OptionError(
            "calibration", f"{name} cannot be read: {error.strerror}", "check the path"
        ) from None
    except (ValueError, LookupError, TypeError, AttributeError, ArithmeticError, RecursionError):
        raise OptionError(
            "calibration", f"{name} is no calibration", "make one with 'blip2cli calibrate'"
        ) from None


def of_model(
    model: ModelOptions | None,
    path: str | os.PathLike[str] | None,
    min_precision: float | None,
    min_confidence: float | None,
    ranker: RankerSpec | None = None,
) -> Calibration | None:
    """The same for a loaded ``model``; None: nothing is known of its weights.

    ``ranker`` picks what it writes. Raises OptionError, also where another model was calibrated.
    """
    text = None if path is None else os.fspath(path)
    found = from_options(CalibrationOptions(text, min_precision, min_confidence))
    if found is not None and model is not None:
        found.check_weights(model, local_checkpoint(model), ranker)
    return found


def _parsed(path: str, data: bytes, options: CalibrationOptions) -> Calibration:
    found = json.loads(data)
    if found["format"] != FORMAT:
        raise OptionError(
            "calibration",
            f"{option('calibration')} {path} has format {found['format']}, and this version reads "
            f"{FORMAT}",
            "make it again with 'blip2cli calibrate'",
        )
    lines = [(float(c), int(n), float(right)) for c, n, right in found["thresholds"]]
    least = options.min_confidence
    if options.min_precision is not None:
        effect = float(found.get("design_effect", 1.0))
        least = lowest_confidence(lines, options.min_precision, effect, path)
    questions = {str(q): float(one["temperature"]) for q, one in found["questions"].items()}
    calibration = Calibration(
        path,
        found["kind"],
        found["norm"],
        found.get("task"),
        bool(found.get("match")),
        f"sha256 {hashlib.sha256(data).hexdigest()[:16]}",
        found["weights"],
        float(found["temperature"] or 1),
        questions,
        found["curve"] or {},
        least,
        options,
    )
    if not all(0 < each < math.inf for each in (calibration.temperature, *questions.values())):
        raise ValueError("a temperature is above 0")
    if calibration.norm not in _NORMS[calibration.kind]:
        raise ValueError(calibration.norm)
    if calibration.curve or calibration.kind == "texts":
        curve_value(calibration.curve, 0.0)
    return calibration


def _with(wanted: bool) -> str:
    return "with" if wanted else "without"
