"""What cannot be done, told before a model is loaded: by its options, or by its family."""

from __future__ import annotations

import math
from collections.abc import Sequence

from blip2cli.errors import OptionError
from blip2cli.model.checkpoint.directory import Family
from blip2cli.options import DEFAULT_MODEL, DecodeOptions


def check_decoding(options: DecodeOptions) -> None:
    """Raise OptionError, naming the mend, when ``options`` cannot be followed."""
    _check_ranges(options)
    if options.sampling and options.num_beams > 1:
        raise OptionError(
            "--num-beams searches and --temperature, --top-p and --top-k draw; give one or the "
            "other."
        )
    if options.num_return > 1 and not options.sampling:
        if options.num_beams == 1:
            raise OptionError(
                f"{options.num_return} captions an image need --num-beams {options.num_return} "
                "or more, or --temperature to draw them: greedy decoding has only one."
            )
        if options.num_return > options.num_beams:
            raise OptionError(
                f"{options.num_return} captions an image need --num-beams {options.num_return} "
                f"or more, not {options.num_beams}."
            )
    if options.length_penalty != 1.0 and options.num_beams == 1:
        raise OptionError("--length-penalty only acts in beam search; add --num-beams 5.")


def check_writes(model: str, family: Family | None, instead: str = "embed images with it") -> None:
    """Raise OptionError when a model of this family writes no text; None: it is not known yet."""
    if family == "itm":
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


def _check_ranges(options: DecodeOptions) -> None:
    for flag, value, least in (
        ("--max-new-tokens", options.max_new_tokens, 1),
        ("--min-new-tokens", options.min_new_tokens, 0),
        ("--num-beams", options.num_beams, 1),
        ("--num-captions", options.num_return, 1),
        ("--no-repeat-ngram-size", options.no_repeat_ngram_size, 0),
    ):
        if value < least:
            raise OptionError(f"{flag} must be at least {least}, not {value}.")
    if options.min_new_tokens > options.max_new_tokens:
        raise OptionError(
            f"--min-new-tokens {options.min_new_tokens} is more than --max-new-tokens "
            f"{options.max_new_tokens}."
        )
    if not (options.repetition_penalty > 0 and math.isfinite(options.repetition_penalty)):
        raise OptionError(
            f"--repetition-penalty must be above 0 (1 is none), not {options.repetition_penalty}."
        )
    if not math.isfinite(options.length_penalty):
        raise OptionError("--length-penalty must be a finite number.")
    temperature, top_p, top_k = options.temperature, options.top_p, options.top_k
    if temperature is not None and not (temperature > 0 and math.isfinite(temperature)):
        raise OptionError(
            f"--temperature must be above 0, not {temperature}; leave it out to decode greedily."
        )
    if top_p is not None and not 0 < top_p <= 1:
        raise OptionError(f"--top-p must be above 0 and at most 1, not {top_p}.")
    if top_k is not None and top_k < 1:
        raise OptionError(f"--top-k must be at least 1, not {top_k}.")
