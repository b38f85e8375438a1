"""What cannot be done, told before a model is loaded: by its options, or by its family."""

from __future__ import annotations

from collections.abc import Sequence

from blip2cli.errors import OptionError
from blip2cli.model.families import Family
from blip2cli.options import DEFAULT_MODEL


def check_writes(model: str, family: Family, instead: str = "embed images with it") -> None:
    """Raise OptionError when a model of this family writes no text."""
    if not family.writes:
        raise OptionError(
            f"{model} is a retrieval model: it compares images with texts and writes none; "
            f"{instead}, or take a model that writes, such as {DEFAULT_MODEL}."
        )


def check_room(texts: Sequence[str], ids: Sequence[Sequence[int]], room: int | None) -> None:
    """Raise OptionError for the first text with more tokens than ``room``; None: no limit."""
    for text, tokens in zip(texts, ids, strict=True):
        if room is not None and len(tokens) > room:
            start = text if len(text) <= 40 else f"{text[:40]}…"
            raise OptionError(
                f"The text {start!r} is {len(tokens)} tokens long, and the model has room for "
                f"{room}; shorten it."
            )
