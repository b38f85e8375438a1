"""The choices of closed questions: parsing, checks, and probabilities from their scores."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence

from blip2cli.errors import OptionError, option
from blip2cli.model.tokenizer.fill_prompt import fill_in, marks_in
from blip2cli.options import AskOptions
from blip2cli.tasks.text_files import TextFile, is_utf8

CHOICE = "{choice}"


def from_options(options: AskOptions) -> tuple[str, ...]:
    """The choices of the options; none when there are none, or columns hold them. Raises
    OptionError."""
    if options.choices is not None:
        return () if marks_in(options.choices) else from_text(options.choices)
    return from_file(options.choices_file) if options.choices_file is not None else ()


def templates_from_options(options: AskOptions) -> tuple[str, ...]:
    """The choices of the options that hold columns of the source; see ``filled_choices``. Raises
    OptionError."""
    if options.choices is not None and marks_in(options.choices):
        place = f"{option('choices')} {options.choices!r}"
        least = 1 if _is_column(options.choices.strip()) else 2
        form = "separated by commas"
        return _checked("choices", place, options.choices.split(","), form, least)
    if options.choices_column is not None and options.questions is None:
        return (f"{{{options.choices_column}}}",)
    return ()


def filled_choices(
    templates: Sequence[str], values: Mapping[str, str], least: int = 2
) -> tuple[str, ...]:
    """The choices of one image, whose ``values`` of columns stand in ``templates``.

    A template that is a column and nothing else may give several: a list as JSON, or texts
    separated by ``|``. Raises OptionError for fewer than ``least``, empty or equal ones.
    """
    texts: list[str] = []
    for template in templates:
        text = fill_in(template, values)
        texts += _listed(text, "choices", "its list of")[0] if _is_column(template) else [text]
    return _checked("choices", "its list of choices", texts, "in the columns of the source", least)


def _is_column(template: str) -> bool:
    marks = marks_in(template)
    return len(marks) == 1 and template == f"{{{marks[0]}}}"


def from_text(text: str) -> tuple[str, ...]:
    """Choices separated by commas."""
    texts = (fill_in(one, {}) for one in text.split(","))  # in which {{ is a brace
    return _checked("choices", f"{option('choices')} {text!r}", texts, "separated by commas")


def from_file(path: str) -> tuple[str, ...]:
    """Choices of a text file, one a line; blank lines are skipped."""
    file = TextFile("choices_file", path)
    lines = [line for _, line in file.lines()]
    return _checked(file.field, str(file), lines, "one a line")


def from_list(choices: Sequence[str]) -> tuple[str, ...]:
    """Choices that a program passes."""
    return _checked("choices", option("choices"), choices, "as a list")


def from_cell(value: object, field: str, place: str) -> tuple[str, ...]:
    """The choices in a cell of a table: a list, a list as JSON, or texts separated by ``|``.

    Empty when the cell is. ``field`` is the option to blame, ``place`` begins a message.
    """
    if value is None or value != value or (isinstance(value, str) and not value.strip()):
        return ()  # pandas writes NaN where there is nothing
    texts, form = _listed(value, field, place)
    return _checked(field, f"{place} choices", texts, form)


def _listed(value: object, field: str, place: str) -> tuple[list[str], str]:
    """The texts in a cell, and how several are written there. Raises OptionError."""
    place = f"{place} choices"
    if isinstance(value, str):
        if not value.lstrip().startswith("["):
            return value.split("|"), "separated by |"
        try:
            value = json.loads(value)
        except (ValueError, RecursionError) as error:
            raise OptionError(field, f"{place} is no JSON list ({error})") from None
    if not isinstance(value, list):
        raise OptionError(field, f"{place} is neither a list nor a text")
    items = [one.get("text", one.get("choice")) if isinstance(one, dict) else one for one in value]
    for item in items:
        if isinstance(item, bool) or not isinstance(item, str | int | float):
            raise OptionError(
                field, f"{place} holds {json.dumps(item)}, which is neither a text nor a number"
            )
    return [str(item) for item in items], "as a list"


def from_texts_column(value: object, column: str, place: str) -> tuple[str, ...]:
    """The texts in a cell of rows that exist already, each once: a text, a list of texts, or a list
    of objects with ``text`` or ``choice``, as our rows hold them (in CSV: as JSON).

    Raises OptionError where there is none.
    """
    if isinstance(value, str) and value.startswith("[{"):
        with contextlib.suppress(ValueError, RecursionError):
            value = json.loads(value)
    texts = []
    for item in value if isinstance(value, list) else [value]:
        text = item.get("text", item.get("choice")) if isinstance(item, dict) else item
        if not isinstance(text, str) or not text.strip():
            problem = "is no text" if text and not isinstance(text, str) else "is missing or empty"
            raise OptionError(
                "choices_column", f"{place} {column} {problem}", "leave such rows out"
            )
        if not is_utf8(text):
            raise OptionError(
                "choices_column", f"{place} {column} is not UTF-8", "save it as UTF-8"
            )
        texts.append(text.strip())
    if not texts:
        raise OptionError("choices_column", f"{place} {column} is empty", "leave such rows out")
    return tuple(dict.fromkeys(texts))


def _checked(
    field: str, place: str, texts: Iterable[str], form: str, least: int = 2
) -> tuple[str, ...]:
    choices = tuple(text.strip() for text in texts)
    if not all(map(is_utf8, choices)):
        raise OptionError(field, f"{place} is not UTF-8", "save it as UTF-8")
    if len(choices) < least or not all(choices):
        problem = "holds an empty choice" if not all(choices) else "leaves nothing to choose"
        raise OptionError(field, f"{place} {problem}", f"give two or more, {form}")
    for number, choice in enumerate(choices):
        if choice in choices[:number]:
            raise OptionError(field, f"{place} holds {choice!r} twice", "leave one of them out")
    return choices


def probabilities(scores: Sequence[float]) -> list[float]:
    """The softmax of ``scores``, rounded to eight significant digits; the sum is 1 within 1e-7.

    That is a little more than float32 scores are worth, and small ones keep their proportions.
    """
    largest = max(scores)
    weights = [math.exp(score - largest) for score in scores]
    total = math.fsum(weights)
    return [float(f"{weight / total:.8g}") for weight in weights]


def choice_mass(logprobs: Sequence[float]) -> float:
    """The probability that the model writes any of the choices at all, in eight significant digits.

    ``logprobs`` are those of whole texts, with the end of text token: so the choices exclude one
    another, and their probabilities add up. Little of it says that the model would write something
    else: the choices, or their form, are not what it expects (arXiv 2305.14596).
    """
    return float(f"{min(1.0, math.fsum(map(math.exp, logprobs))):.8g}")
