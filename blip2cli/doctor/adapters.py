"""Check of adapters: whether they change what the model says of pictures."""

from __future__ import annotations

from dataclasses import replace

import torch
from torch import Tensor

from blip2cli.doctor.behaviour import NEW_TOKENS, NO_EFFECT, percent, relative_error
from blip2cli.doctor.model_under_test import ModelUnderTest
from blip2cli.doctor.report import Outcome, ok, skipped, warn
from blip2cli.errors import option
from blip2cli.model.checkpoint.resolve import HUB_ID
from blip2cli.model.retrieval import Pair
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import DecodeOptions

_TEXT = "a photo of a cat"


def changes_text(subject: ModelUnderTest) -> Outcome:
    """The texts of pictures, or their scores, are others with the adapters than without."""
    lacking = subject.missing_memory(subject.model.dtype.itemsize)
    if lacking is not None:
        return skipped(f"the model without its adapters does not fit beside it: {lacking}")
    bare = ModelUnderTest(
        subject.name,
        replace(subject.checkpoint, adapters=()),
        subject.placement,
        subject.pictures,
    )
    with_them, without = _scores(subject.model, subject), _scores(bare.model, bare)
    change = relative_error(with_them, without)
    if change <= NO_EFFECT:
        return warn(
            "it changes nothing that the model says of pictures: text and scores are the same "
            "without it",
            f"give the {option('adapter')} that was trained; before training it adds nothing",
        )
    scores = f"scores change by {percent(change)}{_other_base(subject)}"
    if not subject.checkpoint.family.writes:
        return ok(f"it changes how pictures match texts: {scores}")
    before, after = _texts(bare.model, bare), _texts(subject.model, subject)
    pairs = [(old, new) for old, new in zip(before, after, strict=True) if old != new]
    if not pairs:
        return ok(f"it does not change the text of these {len(after)} pictures; {scores}")
    old, new = pairs[0]
    return ok(
        f"it changes the text of {len(pairs)} of {len(after)} pictures: {old!r} becomes {new!r}; "
        f"{scores}"
    )


def _other_base(subject: ModelUnderTest) -> str:
    """What is added where an adapter was trained on another model of the hub than this one."""
    names = {each.base for each in subject.checkpoint.adapters if each.name != subject.name}
    others = [n for n in names if n and n != subject.name and HUB_ID.fullmatch(n)]
    if not others or not HUB_ID.fullmatch(subject.name):
        return ""
    return f"; it was trained on {' and '.join(sorted(others))}, not on {subject.name}"


@torch.inference_mode()
def _scores(model: Blip2, subject: ModelUnderTest) -> Tensor:
    """Logits of each picture's first token, [N, V]; of a retrieval model, those of a match."""
    features = model.features(subject.pixels)
    if model.retrieval is not None:
        pairs = [Pair(number, _TEXT) for number in range(len(features))]
        return model.retrieval.matching_logits(features, pairs).float()
    return model.scores(features)[:, 0].float()


def _texts(model: Blip2, subject: ModelUnderTest) -> list[str]:
    features = model.features(subject.pixels)
    prompts = [Prompt(number, None, "caption") for number in range(len(features))]
    found = model.generate(features, prompts, DecodeOptions(max_new_tokens=NEW_TOKENS))
    return [texts[0].text for texts in found]
