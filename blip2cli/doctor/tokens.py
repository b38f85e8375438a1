"""Checks of the tokenizer against the configuration."""

from __future__ import annotations

from typing import Any

from blip2cli.doctor.model_under_test import Patient
from blip2cli.doctor.report import Outcome, fail, ok, warn

IMAGE = "<image>"
PROBE = "a photo of"


def embedding_rows(patient: Patient) -> Outcome:
    """Every token of the tokenizer has a row in the embedding."""
    text = patient.config.text_config
    return rows_for("text_config", text.vocab_size, len(patient.codec.tokenizer))


def rows_for(part: str, rows: int, tokens: int) -> Outcome:
    """What to say of an embedding of ``rows`` rows for ``tokens`` tokens."""
    if rows >= tokens:
        return ok(f"{rows} rows for {tokens} tokens")
    return fail(
        f"the embedding has {rows} rows (vocab_size in {part}) and the tokenizer {tokens} tokens: "
        "some texts end in an index error",
        "take weights, config.json and tokenizer from one model, or call "
        f"resize_token_embeddings({tokens}) in transformers and save the model again.",
    )


def image_token(patient: Patient) -> Outcome:
    """The token that stands for the image is known, to model and tokenizer alike."""
    index = patient.config.image_token_index
    rows = patient.config.text_config.vocab_size
    known: int | None = patient.tokenizer.get_vocab().get(IMAGE)
    made = len(patient.tokenizer) if known is None else known  # the processor adds it last
    if index is None and known is None:
        room = f"resize the embedding to a multiple of 64 above {made}, " if made >= rows else ""
        return warn(
            f"there is no {IMAGE} token, as usual before transformers 4.47; blip2cli does without, "
            "newer transformers do not",
            f"add {IMAGE} to the tokenizer, {room}and set image_token_index to {made} in "
            "config.json.",
        )
    mend = f"set image_token_index to {made} in config.json."
    if index is None:
        return fail(
            f"image_token_index is not set, and the tokenizer has {IMAGE} as {made}: transformers "
            "ends in a TypeError, or ignores the image",
            mend,
        )
    if not 0 <= index < rows:
        return fail(
            f"image_token_index is {index}, and the embedding has {rows} rows: transformers ends "
            "in an index error",
            mend,
        )
    if index != made:
        return fail(
            f"image_token_index is {index}, but the tokenizer has {IMAGE} as {made}: transformers "
            "ignores the image without an error",
            mend,
        )
    return ok(f"{IMAGE} is {index}")


def padding_side(patient: Patient) -> Outcome:
    """Batches of other programs are padded on the side this language model can bear."""
    said = patient.tokenizer_settings.get("padding_side")
    if patient.checkpoint.family == "t5":
        if said == "left":
            return fail(
                "left: padding comes between image and prompt, and shifts T5's relative positions "
                "in other programs' batches (blip2cli never pads)",
                "set padding_side to right in tokenizer_config.json.",
            )
        return ok("right, as published" if said else "not set, which means right, as published")
    mend = "set padding_side to left in tokenizer_config.json."
    if said == "left":
        return ok("left")
    if said is None:
        return warn(
            "not set, which means right: other programs' batches of unequal prompts go wrong "
            "(blip2cli never pads)",
            mend,
        )
    return fail(
        f"{said}: OPT goes on from padding in other programs' batches of unequal prompts (blip2cli "
        "never pads)",
        mend,
    )


def prompt_tokens(patient: Patient) -> Outcome:
    """OPT's prompts begin with the begin token, T5's end with the end token."""
    ours = list(patient.codec.encode(PROBE))
    theirs = list(patient.tokenizer(PROBE)["input_ids"])
    text = patient.config.text_config
    if patient.checkpoint.family == "t5":
        place, word, wanted = -1, "end", patient.tokenizer.eos_token_id
    else:
        place, word, wanted = 0, "begin", text.bos_token_id
    mend = _mend(word, wanted)
    if ours[place] != wanted:
        return fail(
            f"prompts do not {word} with the {word} token {wanted}: {PROBE!r} becomes {ours}", mend
        )
    if theirs != ours:
        return warn(
            f"blip2cli reads {PROBE!r} as {ours}, transformers' own loader as {theirs}",
            "nothing here; in programs of your own load tokenizer.json with "
            "PreTrainedTokenizerFast.",
        )
    return ok(f"prompts {word} with token {wanted}")


def _mend(word: str, wanted: int | None) -> str:
    if word == "begin":
        return (
            "set add_bos_token to true in tokenizer_config.json, and let the post_processor of "
            f"tokenizer.json put token {wanted} in front."
        )
    return (
        f"let the post_processor of tokenizer.json put token {wanted} at the end, or take the "
        "tokenizer files of the model it was trained from."
    )


def end_token(patient: Patient) -> Outcome:
    """Texts end where the model was taught to end them.

    For OPT that is the newline, not OPT's own end token: BLIP-2 was trained on captions followed
    by "\\n" (LAVIS blip2_opt.py, ``eos_token_id``).
    """
    opt = patient.checkpoint.family == "opt"
    tokenizer = patient.codec.tokenizer
    if opt:
        ids = tokenizer("\n", add_special_tokens=False)["input_ids"]
        wanted = ids[0] if len(ids) == 1 else None
        what = 'the newline "\\n"'
    else:
        wanted, what = patient.tokenizer.eos_token_id, "the tokenizer's end token"
    if wanted is None:
        return fail(
            f"{what} is not one token of the tokenizer",
            "take the tokenizer files of the model it was trained from.",
        )
    mend = "set eos_token_id to {} in text_config of config.json and in generation_config.json."
    places = [("text_config of config.json", patient.config.text_config.eos_token_id)]
    if patient.generation is not None:
        places.append(("generation_config.json", patient.generation.get("eos_token_id")))
    wrong = [f"{value} in {place}" for place, value in places if wanted not in _several(value)]
    if wrong:
        return fail(
            f"eos_token_id is {' and '.join(wrong)}, but texts end with {what}, token {wanted}: "
            "they would run on",
            mend.format(wanted),
        )
    return ok(f"{what}, token {wanted}")


def _several(value: Any) -> tuple[int, ...]:
    if value is None:
        return ()
    return tuple(value) if isinstance(value, list | tuple) else (int(value),)
