"""Generated texts with a flag for degenerate ones, which can be decoded again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blip2cli.options import DecodeOptions
from blip2cli.tasks.degenerate import Flag, flag_of

if TYPE_CHECKING:
    from blip2cli.model.generation import Generated
    from blip2cli.model.tokenizer.fill_prompt import Prompt
    from blip2cli.model.vision.features import ImageFeatures
    from blip2cli.model.wrapper import Blip2

# ``no_repeat_ngram_size`` of the second and the third attempt: three, the usual size (Paulus et
# al., arXiv 1705.04304), still allows "on a red table" twice; two allows no loop.
_RETRY_NGRAM_SIZES = (3, 2)
# ``min_new_tokens`` after an empty text. The shortest caption, "a cat" and its end, has three.
_RETRY_MIN_TOKENS = 3


@dataclass(frozen=True)
class FlaggedTexts:
    """The texts generated for one prompt, best first, and the flag of the best."""

    texts: Sequence[Generated]
    flag: Flag


def generate_texts(
    model: Blip2,
    features: ImageFeatures,
    prompts: Sequence[Prompt],
    not_to_repeat: Sequence[str | None],
    options: DecodeOptions,
) -> list[FlaggedTexts]:
    """Generate texts for ``prompts``, in order.

    ``not_to_repeat`` is what each text must not just repeat: the question, or the caption's prompt.

    With ``options.retry_degenerate`` flagged texts are decoded again under stricter options. The
    first attempt without a flag replaces the text and is flagged ``retried``; if there is none the
    first text stays. Which prompts are retried does not affect the others.
    """
    found = [
        FlaggedTexts(texts, flag_of(texts[0].text, given))
        for texts, given in zip(
            model.generate(features, prompts, options), not_to_repeat, strict=True
        )
    ]
    if not options.retry_degenerate:
        return found
    # Good second or third attempts replace flagged texts.
    for empty in (False, True):
        left = [n for n, one in enumerate(found) if one.flag and (one.flag == "empty") == empty]
        for stricter in _stricter_options(options, empty):
            if not left:
                break
            again = model.generate(features, [prompts[n] for n in left], stricter)
            for number, texts in zip(left, again, strict=True):
                if not flag_of(texts[0].text, not_to_repeat[number]):
                    found[number] = FlaggedTexts(texts, "retried")
            left = [n for n in left if found[n].flag != "retried"]
    return found


def _stricter_options(options: DecodeOptions, empty: bool) -> list[DecodeOptions]:
    """The options of the next attempts, in order, after an empty text or another flagged one."""
    sizes = [n for n in _RETRY_NGRAM_SIZES if not 0 < options.no_repeat_ngram_size <= n]
    if empty:
        least = min(max(options.min_new_tokens, _RETRY_MIN_TOKENS), options.max_new_tokens)
        options = replace(options, min_new_tokens=least)
        if not sizes:
            return [options]
    return [replace(options, no_repeat_ngram_size=n) for n in sizes]
