"""Texts from a model that writes, each with a flag where it says nothing, and a second try."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blip2cli.options import DecodeOptions
from blip2cli.tasks.degenerate import Flag, flag_of

if TYPE_CHECKING:
    from blip2cli.model.tokenizer.prompts import Prompt
    from blip2cli.model.vision.features import ImageFeatures
    from blip2cli.model.wrapper import Blip2, Generated

# Runs of tokens that a second and a third try must not repeat: three, the usual size (Paulus et
# al., arXiv 1705.04304), leaves "on a red table" its place; two leaves no loop any.
_RETRIES = (3, 2)
# An empty text ended too early. The shortest caption, "a cat" and its end, has three tokens.
_LEAST_TOKENS = 3


@dataclass(frozen=True)
class Said:
    """What the model wrote for one prompt, best first, and what is wrong with the best."""

    texts: Sequence[Generated]
    flag: Flag


def write(
    model: Blip2,
    features: ImageFeatures,
    prompts: Sequence[Prompt],
    asked: Sequence[str | None],
    options: DecodeOptions,
) -> list[Said]:
    """Write texts for ``prompts``, in order; ``asked`` is what each must not merely repeat.

    With ``options.retry_degenerate`` flagged ones are written again under stricter rules. A try
    whose text is good takes the place of the first and is flagged ``retried``; without one the
    first stays as it was. Which prompts are tried again has no influence on the others.
    """
    found = [
        Said(texts, flag_of(texts[0].text, about))
        for texts, about in zip(model.generate(features, prompts, options), asked, strict=True)
    ]
    if options.retry_degenerate:
        _write_again(model, features, prompts, asked, options, found)
    return found


def _write_again(
    model: Blip2,
    features: ImageFeatures,
    prompts: Sequence[Prompt],
    asked: Sequence[str | None],
    options: DecodeOptions,
    found: list[Said],
) -> None:
    """Put good second (or third) tries in the places of flagged ones in ``found``."""
    for empty in (False, True):
        left = [n for n, said in enumerate(found) if said.flag and (said.flag == "empty") == empty]
        for stricter in _stricter(options, empty):
            if not left:
                break
            again = model.generate(features, [prompts[n] for n in left], stricter)
            for number, texts in zip(left, again, strict=True):
                if not flag_of(texts[0].text, asked[number]):
                    found[number] = Said(texts, "retried")
            left = [n for n in left if found[n].flag != "retried"]


def _stricter(options: DecodeOptions, empty: bool) -> list[DecodeOptions]:
    """What to try again with, in order, where ``options`` gave no text or an endless one."""
    sizes = [n for n in _RETRIES if not 0 < options.no_repeat_ngram_size <= n]
    if empty:
        least = min(max(options.min_new_tokens, _LEAST_TOKENS), options.max_new_tokens)
        options = replace(options, min_new_tokens=least)
        if not sizes:
            return [options]
    return [replace(options, no_repeat_ngram_size=n) for n in sizes]
