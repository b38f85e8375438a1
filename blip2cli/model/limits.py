"""Limits of a model: no texts without a language model, none longer than its positions."""

from __future__ import annotations

from collections.abc import Sequence

from blip2cli.errors import OptionError
from blip2cli.model.families import Family, LanguageFamily
from blip2cli.options import DEFAULT_MODEL


def check_writes(
    model: str, family: Family, alternative: str = "embed images with it"
) -> LanguageFamily:
    """``family``, if it generates texts; else raise OptionError.

    ``alternative`` is what to do with the model instead.
    """
    if not isinstance(family, LanguageFamily):
        raise OptionError(
            "model",
            f"{model} is a retrieval model: it compares images with texts and writes none",
            f"{alternative}, or take a model that writes, such as {DEFAULT_MODEL}",
        )
    return family


def check_length(texts: Sequence[str], ids: Sequence[Sequence[int]], positions: int | None) -> None:
    """Raise OptionError for the first text with more tokens than ``positions``; None: no limit."""
    for text, tokens in zip(texts, ids, strict=True):
        if positions is not None and len(tokens) > positions:
            raise OptionError(
                None,
                f"The text {shortened(text)!r} is {len(tokens)} tokens long, and the model has "
                f"room for {positions}",
                "shorten it",
            )


def shortened(text: str) -> str:
    """The beginning of a text, for a message."""
    return text if len(text) <= 40 else f"{text[:40]}…"
