"""Limits of a model: no texts without a language model, none longer than its positions."""

from __future__ import annotations

from collections.abc import Sequence

from blip2cli.errors import OptionError, option
from blip2cli.model.checkpoint.config import Blip2Config
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


def fits(config: Blip2Config, prompt_length: int, new_tokens: int) -> bool:
    """Whether an image, a prompt and new tokens are within the language model's positions."""
    positions = config.text_config.positions
    length = config.num_query_tokens + prompt_length + new_tokens
    return positions is None or length <= positions


def check_prompt(config: Blip2Config, name: str, prompt_length: int, new_tokens: int) -> None:
    """Raise OptionError when the prompt of the row ``name`` is too long for the model."""
    if not fits(config, prompt_length, new_tokens):
        raise OptionError(
            "max_new_tokens",
            f"the prompt for {name} is {prompt_length} tokens long; with the image and "
            f"{new_tokens} new tokens that is more than the {config.text_config.positions} the "
            f"model has room for: shorten it or lower {option('max_new_tokens')}",
        )


def shortened(text: str) -> str:
    """The beginning of a text, for a message."""
    return text if len(text) <= 40 else f"{text[:40]}…"
