"""Checks of the tokenizer against the configuration."""

from __future__ import annotations

from typing import Any

from blip2cli.doctor.model_under_test import ModelUnderTest
from blip2cli.doctor.report import Outcome, fail, ok, warn

IMAGE = "<image>"
PROBE = "a photo of"


def embedding_rows(subject: ModelUnderTest) -> Outcome:
    """Every token of the tokenizer has a row in the embedding."""
    text = subject.config.text_config
    return check_rows("text_config", text.vocab_size, len(subject.codec.tokenizer))


def check_rows(section: str, rows: int, tokens: int) -> Outcome:
    """Whether an embedding of ``rows`` rows is enough for ``tokens`` tokens."""
    if rows >= tokens:
        return ok(f"{rows} rows for {tokens} tokens")
    return fail(
        f"the embedding has {rows} rows (vocab_size in {section}) and the tokenizer {tokens} "
        "tokens: some texts end in an index error",
        "take weights, config.json and tokenizer from one model, or call "
        f"resize_token_embeddings({tokens}) in transformers and save the model again",
    )


def image_token(subject: ModelUnderTest) -> Outcome:
    """Model and tokenizer agree on the id of the image token."""
    index = subject.config.image_token_index
    rows = subject.config.text_config.vocab_size
    known: int | None = subject.tokenizer.get_vocab().get(IMAGE)
    expected = len(subject.tokenizer) if known is None else known  # the processor adds it last
    if index is None and known is None:
        resize = ""
        if expected >= rows:
            resize = f"resize the embedding to a multiple of 64 above {expected}, "
        return warn(
            f"there is no {IMAGE} token, as usual before transformers 4.47; blip2cli does without, "
            "newer transformers do not",
            f"add {IMAGE} to the tokenizer, {resize}and set image_token_index to {expected} in "
            "config.json",
        )
    if index == expected and 0 <= index < rows:
        return ok(f"{IMAGE} is {index}")
    if index is None:
        problem = f"not set, and the tokenizer has {IMAGE} as {expected}"
        effect = "ends in a TypeError, or ignores the image"
    elif not 0 <= index < rows:
        problem = f"{index}, and the embedding has {rows} rows"
        effect = "ends in an index error"
    else:
        problem = f"{index}, but the tokenizer has {IMAGE} as {expected}"
        effect = "ignores the image without an error"
    return fail(
        f"image_token_index is {problem}: transformers {effect}",
        f"set image_token_index to {expected} in config.json",
    )


def padding_side(subject: ModelUnderTest) -> Outcome:
    """Batches of other programs are padded on the side that suits the language model."""
    side = subject.tokenizer_config.get("padding_side")
    if subject.checkpoint.family.encoder_decoder:
        if side == "left":
            return fail(
                "left: padding comes between image and prompt, and shifts T5's relative positions "
                "in other programs' batches (blip2cli never pads)",
                "set padding_side to right in tokenizer_config.json",
            )
        return ok("right, as published" if side else "not set, which means right, as published")
    remedy = "set padding_side to left in tokenizer_config.json"
    if side == "left":
        return ok("left")
    if side is None:
        return warn(
            "not set, which means right: other programs' batches of unequal prompts go wrong "
            "(blip2cli never pads)",
            remedy,
        )
    return fail(
        f"{side}: {subject.checkpoint.family.name.upper()} goes on from padding in other programs' "
        "batches of unequal prompts (blip2cli never pads)",
        remedy,
    )


def prompt_tokens(subject: ModelUnderTest) -> Outcome:
    """A decoder's prompts begin with BOS, T5's end with EOS."""
    ours = list(subject.codec.encode(PROBE))
    theirs = list(subject.tokenizer(PROBE)["input_ids"])
    if subject.checkpoint.family.encoder_decoder:
        place, word, expected = -1, "end", subject.tokenizer.eos_token_id
        remedy = (
            f"let the post_processor of tokenizer.json put token {expected} at the end, or take "
            "the tokenizer files of the model it was trained from"
        )
    else:
        place, word, expected = 0, "begin", subject.config.text_config.bos_token_id
        if subject.checkpoint.model_type.instructed:
            # The configurations published with InstructBLIP name another: its authors set the
            # tokenizer to the end token.
            expected = subject.tokenizer.bos_token_id
        remedy = (
            "set add_bos_token to true in tokenizer_config.json, and let the post_processor of "
            f"tokenizer.json put token {expected} in front"
        )
    if ours[place] != expected:
        return fail(
            f"prompts do not {word} with the {word} token {expected}: {PROBE!r} becomes {ours}",
            remedy,
        )
    if theirs != ours:
        return warn(
            f"blip2cli reads {PROBE!r} as {ours}, transformers' own loader as {theirs}",
            "nothing here; in programs of your own load tokenizer.json with "
            "PreTrainedTokenizerFast",
        )
    return ok(f"prompts {word} with token {expected}")


def end_token(subject: ModelUnderTest) -> Outcome:
    """``eos_token_id`` is the token that ended texts in training.

    For OPT that is the newline, not OPT's own EOS: BLIP-2 was trained on captions followed by
    "\\n" (LAVIS blip2_opt.py, ``eos_token_id``).
    """
    end_text = subject.checkpoint.family.end_text
    tokenizer = subject.codec.tokenizer
    if end_text is not None:
        ids = tokenizer(end_text, add_special_tokens=False)["input_ids"]
        expected = ids[0] if len(ids) == 1 else None
        what = 'the newline "\\n"'
    else:
        expected, what = subject.tokenizer.eos_token_id, "the tokenizer's end token"
    if expected is None:
        return fail(
            f"{what} is not one token of the tokenizer",
            "take the tokenizer files of the model it was trained from",
        )
    remedy = "set eos_token_id to {} in text_config of config.json and in generation_config.json"
    places = [("text_config of config.json", subject.config.text_config.eos_token_id)]
    if subject.generation_config is not None:
        places.append(("generation_config.json", subject.generation_config.get("eos_token_id")))
    wrong = [f"{value} in {place}" for place, value in places if expected not in _several(value)]
    if wrong:
        return fail(
            f"eos_token_id is {' and '.join(wrong)}, but texts end with {what}, token {expected}: "
            "they would run on",
            remedy.format(expected),
        )
    return ok(f"{what}, token {expected}")


def _several(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (int(value),)
