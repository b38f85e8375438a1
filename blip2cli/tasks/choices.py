"""Closed questions: the answers there are to choose from, and how probable each one is."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import fields
from pathlib import Path
from typing import get_args

from blip2cli.errors import OptionError
from blip2cli.options import DecodeOptions, Norm

NORMS: tuple[Norm, ...] = get_args(Norm)
CHOICE = "{choice}"

# Significant digits, a little more than float32 scores are worth. Rounded so, any number of
# probabilities still sums to 1 within 1e-7, and small ones keep their proportions.
_DIGITS = 8


def from_text(text: str) -> tuple[str, ...]:
    """The choices of ``--choices``: separated by commas."""
    return _checked(f"--choices {text!r}", text.split(","), "separated by commas")


def from_file(path: str) -> tuple[str, ...]:
    """The choices of ``--choices-file``: one a line, empty lines left out."""
    try:
        text = Path(path).read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise OptionError(f"--choices-file {path}: there is no such file.") from None
    except UnicodeDecodeError:
        raise OptionError(f"--choices-file {path} is not UTF-8; save it as UTF-8.") from None
    except OSError as error:
        raise OptionError(f"--choices-file {path} cannot be read: {error.strerror}.") from None
    lines = [line for line in text.splitlines() if line.strip()]
    return _checked(f"--choices-file {path}", lines, "one a line")


def from_cell(value: object, where: str) -> tuple[str, ...]:
    """The choices in a table's column: a list, a list as JSON, or texts separated by ``|``.

    Empty when the cell is. ``where`` begins a refusal.
    """
    if value is None or (isinstance(value, str) and not value.strip()):
        return ()
    where = f"{where} choices"
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return _checked(where, value.split("|"), "separated by |")
        try:
            value = json.loads(value)
        except json.JSONDecodeError as error:
            raise OptionError(f"{where} is no JSON list ({error.msg}).") from None
    if not isinstance(value, list):
        raise OptionError(f"{where} is neither a list nor a text.")
    for item in value:
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise OptionError(
                f"{where} holds {json.dumps(item)}, which is neither a text nor a number."
            )
    return _checked(where, [str(item) for item in value], "as a list")


def given(choices: Sequence[str]) -> tuple[str, ...]:
    """Choices that a program passes."""
    return _checked("choices", choices, "as a list")


def _checked(where: str, texts: Iterable[str], form: str) -> tuple[str, ...]:
    choices = tuple(text.strip() for text in texts)
    if len(choices) < 2 or not all(choices):
        what = "holds an empty choice" if not all(choices) else "leaves nothing to choose"
        raise OptionError(f"{where} {what}; give two or more, {form}.")
    for number, choice in enumerate(choices):
        if choice in choices[:number]:
            raise OptionError(f"{where} holds {choice!r} twice; leave one of them out.")
        try:
            choice.encode("utf-8")
        except UnicodeEncodeError:
            raise OptionError(f"{where} is not UTF-8; save it as UTF-8.") from None
    return choices


# The flags of options that shape texts as they are written.
_FLAGS = {"num_return": "--num-captions"}


def check_unused(decode: DecodeOptions) -> None:
    """Raise OptionError when a decoding option is set where every answer is chosen."""
    for field in fields(DecodeOptions):
        if getattr(decode, field.name) != field.default:
            flag = _FLAGS.get(field.name, "--" + field.name.replace("_", "-"))
            raise OptionError(
                f"{flag} is about texts that are written, and here every question has its choices; "
                "leave it out."
            )


def probabilities(scores: Sequence[float]) -> list[float]:
    """The softmax of ``scores``, rounded to eight digits; the sum is 1 within 1e-7."""
    most = max(scores)
    weights = [math.exp(score - most) for score in scores]
    total = math.fsum(weights)
    return [float(f"{weight / total:.{_DIGITS}g}") for weight in weights]
