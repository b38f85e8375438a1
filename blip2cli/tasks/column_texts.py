"""Columns of the source in prompts, questions and choices, such as ``a photo of {alt}``.

``{NAME}`` stands for the image's value in the column ``NAME``; ``{{`` and ``}}`` are braces. What a
task fills in otherwise wins over columns: ``{question}``, ``{choice}``, ``{answer}`` and
``{history}`` in a template, the last two in a question.

``error_type`` name raised here: ``bad_metadata``, for a value that does not fit into its text.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from blip2cli.errors import ImageError, OptionError, UserError, option
from blip2cli.storage.hash_set import OCCURRENCE, ORDINAL
from blip2cli.tasks.text_files import is_utf8

if TYPE_CHECKING:
    from blip2cli.images.batch_stream import LoadedBatch, LoadedImage
    from blip2cli.model.wrapper import Blip2

NO_VALUES: Mapping[str, str] = {}
MOST_TOKENS = 4096  # of a prompt with columns, where the model itself has no limit


def check_columns(used: Mapping[str, str], carried: Sequence[str]) -> None:
    """Raise OptionError for a column that is ``used`` and not ``carried`` from a source.

    ``used`` gives the option whose text names each column.
    """
    for name, field in used.items():
        if name in (OCCURRENCE, ORDINAL):
            raise OptionError(
                field,
                f"{option(field)} with {{{name}}}: rows have a column {name} of their own",
                "rename it in the source",
            )
        if name not in carried:
            raise OptionError(
                field,
                f"{option(field)} with {{{name}}}: there is no source with columns here",
                "write {{ and }} for braces",
            )


def blamed(error: OptionError, used: Mapping[str, str]) -> OptionError:
    """``error``, about a column that the source lacks, with the option whose text names it."""
    for name, field in used.items():
        begin = f"{option('keep')} {name}:"
        if error.field == "keep" and error.problem.startswith(begin):
            problem = f"{option(field)} with {{{name}}}:{error.problem.removeprefix(begin)}"
            remedy = f"{error.remedy}; {{{{ and }}}} are braces" if error.remedy else ""
            return OptionError(field, problem, remedy)
    return error


def column_values(
    item: LoadedImage, carried: Sequence[str], used: Mapping[str, str]
) -> dict[str, str]:
    """The values of the columns that are ``used``, as text, of those ``carried``.

    Raises ImageError for one that is missing, empty or not UTF-8.
    """
    given = dict(zip(carried, item.carried, strict=False))
    found = {}
    for name, field in used.items():
        text = _as_text(given.get(name))
        if not text.strip():
            raise _unfit(f"Its {name} is missing or empty, and {option(field)} needs it.")
        if not is_utf8(text):
            raise _unfit(f"Its {name}, which {option(field)} needs, is not UTF-8.")
        found[name] = text
    return found


def check_tokens(model: Blip2, values: Mapping[str, str]) -> None:
    """Raise ImageError for a value that holds a special token of the model: its prompt would end
    there, or begin anew."""
    for name, text in values.items():
        for token in model.codec.special_texts:
            if token in text:
                raise _unfit(f"Its {name} holds {token!r}, which is a special token of the model.")


def check_prompt_length(model: Blip2, text: str, new_tokens: int) -> None:
    """Raise ImageError for a prompt that leaves the model no place for ``new_tokens``."""
    count = len(model.codec.encode(text))
    if count > MOST_TOKENS or not model.fits(text, new_tokens):
        raise _unfit(
            f"With its columns the prompt is {count} tokens long, more than the model has room for."
        )


def screened(batch: LoadedBatch, check: Callable[[LoadedImage], None]) -> LoadedBatch:
    """``batch``, in which the images that ``check`` raises a UserError or ImageError for failed."""
    items: list[LoadedImage] = []
    good: list[bool] = []
    for item in batch.items:
        error = _problem(check, item) if item.error is None else None
        if item.error is None:
            good.append(error is None)
        items.append(item if error is None else replace(item, width=None, height=None, error=error))
    if all(good):
        return batch
    left = [number for number, fits in enumerate(good) if fits]
    return replace(batch, items=tuple(items), pixels=batch.pixels[left])


def _problem(check: Callable[[LoadedImage], None], item: LoadedImage) -> ImageError | None:
    try:
        check(item)
    except ImageError as error:
        return ImageError(error.error_type, error.problem)  # without its traceback
    except UserError as error:
        return _unfit(f"{error.problem[:1].upper()}{error.problem[1:]}.")
    return None


def _unfit(message: str) -> ImageError:
    return ImageError("bad_metadata", message)


def _as_text(value: object) -> str:
    """A carried value; a whole number is the same text whether its column has fractions or not."""
    if value is None:
        return ""
    if isinstance(value, float) and math.isfinite(value) and value.is_integer():
        return str(int(value))
    return str(value)


def all_columns(texts: Iterable[tuple[str, str, Iterable[str]]]) -> dict[str, str]:
    """The columns in texts, and the option of the first text that names each.

    ``texts`` are the option, the text, and the marks in it that are no columns. Raises OptionError
    for a text with a brace that names nothing.
    """
    used: dict[str, str] = {}
    for field, text, marks in texts:
        if "{" not in text:  # most texts: the module below need not be imported
            continue
        from blip2cli.model.tokenizer.fill_prompt import has_lone_brace, marks_in

        if has_lone_brace(text):
            raise OptionError(
                field,
                f"{option(field)} {text!r} has a {{ that names no column",
                "write {NAME} for a column, {{ for a brace",
            )
        for name in marks_in(text):
            if name not in marks:
                used.setdefault(name, field)
    return used
