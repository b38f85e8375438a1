"""Checks of captions against known ones: published by LAVIS, or true of a drawn picture."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePath

import torch

from blip2cli.doctor.model_under_test import ModelUnderTest
from blip2cli.doctor.pictures import Picture
from blip2cli.doctor.report import Outcome, fail, ok, skipped, warn
from blip2cli.errors import option
from blip2cli.images.preprocess import to_uint8
from blip2cli.model.checkpoint.embedded import EMBEDDED
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.options import DecodeOptions

# The captions that LAVIS's tests expect of its published models (tests/models/test_blip2.py): five
# beams, no prompt, picture docs/_static/merlion.png of its repository. By their names on the hub.
MERLION = "merlion"
PUBLISHED = {
    "Salesforce/blip2-opt-2.7b": "the merlion fountain in singapore",
    "Salesforce/blip2-opt-2.7b-coco": "a statue of a mermaid spraying water into the air",
    "Salesforce/blip2-opt-6.7b": "a statue of a merlion in front of a water fountain",
    "Salesforce/blip2-flan-t5-xl": "marina bay sands, singapore",
    "Salesforce/blip2-flan-t5-xxl": "the merlion statue in singapore",
}


def known_caption(subject: ModelUnderTest, published: Mapping[str, str] = PUBLISHED) -> Outcome:
    """The model gives a picture the caption it is known to give; ``published`` by model name."""
    adapted = bool(subject.checkpoint.adapters)  # known captions are of the model without them
    expected = None if adapted else published_caption(subject.name, published)
    if subject.image is None:
        if adapted:
            return skipped("captions are known of models without adapters")
        if subject.name in EMBEDDED:
            picture = subject.pictures[0]
            caption, truth = (
                _caption(subject, picture, 1),
                f"true of the drawn picture {picture.name}",
            )
            if caption == picture.caption:
                return ok(f"{caption!r}, which is {truth}")
            return fail(
                f"expected {picture.caption!r}, which is {truth}, and got {caption!r}",
                "install blip2cli again; if it stays, report it with what doctor "
                f"{option('json')} says",
            )
        if expected is None:
            return skipped("no caption is published for this model")
        return skipped(f"give {option('image')} {MERLION}.png, of which {expected!r} is published")
    caption = _caption(subject, subject.image, 5)
    if expected is None or PurePath(subject.image.name).stem.lower() != MERLION:
        return skipped(
            f"{subject.image.name}: {caption!r}; no caption is published for this picture and model"
        )
    if caption.lower() == expected:
        return ok(f"{caption!r}, as published")
    found = f"expected {expected!r}, as published, and got {caption!r}"
    if subject.model.dtype == torch.float32:
        return fail(found, "fetch model and picture again; the other checks may tell more")
    return warn(
        found, f"run this check with {option('dtype')} float32: there it has to be the same"
    )


def published_caption(name: str, published: Mapping[str, str] = PUBLISHED) -> str | None:
    """The caption for a model, by its hub id or a directory of the same last name."""
    last = PurePath(name).name
    return next((text for key, text in published.items() if PurePath(key).name == last), None)


def _caption(subject: ModelUnderTest, picture: Picture, beams: int) -> str:
    model = subject.model
    features = model.features(to_uint8(picture.image, model.spec)[None])
    options = DecodeOptions(num_beams=beams)
    return model.generate(features, [Prompt(0, None, picture.name)], options)[0][0].text
