"""Checks of what the model says of pictures whose captions are known."""

from __future__ import annotations

from pathlib import PurePath

import torch

from blip2cli.doctor.model_under_test import Patient, Picture
from blip2cli.doctor.report import Outcome, fail, ok, skipped, warn
from blip2cli.images.preprocess import to_uint8
from blip2cli.model.checkpoint.embedded import EMBEDDED
from blip2cli.model.tokenizer.prompts import Prompt
from blip2cli.options import DecodeOptions

# What LAVIS expects of its published models (tests/models/test_blip2.py): five beams, no prompt,
# picture docs/_static/merlion.png of its repository. By the names the models have on the hub.
MERLION = "merlion"
PUBLISHED = {
    "Salesforce/blip2-opt-2.7b": "the merlion fountain in singapore",
    "Salesforce/blip2-opt-2.7b-coco": "a statue of a mermaid spraying water into the air",
    "Salesforce/blip2-opt-6.7b": "a statue of a merlion in front of a water fountain",
    "Salesforce/blip2-flan-t5-xl": "marina bay sands, singapore",
    "Salesforce/blip2-flan-t5-xxl": "the merlion statue in singapore",
}


def known_caption(patient: Patient) -> Outcome:
    """The model says of a picture what it is known to say."""
    published = published_caption(patient.name)
    if patient.image is None:
        if patient.name in EMBEDDED:
            return _drawn(patient)
        if published is None:
            return skipped("no caption is published for this model")
        return skipped(f"give --image {MERLION}.png, of which {published!r} is published")
    said = _caption(patient, patient.image, 5)
    if published is None or PurePath(patient.image.name).stem.lower() != MERLION:
        return skipped(
            f"{patient.image.name}: {said!r}; no caption is published for this picture and model"
        )
    if said.lower() == published:
        return ok(f"{said!r}, as published")
    found = f"expected {published!r}, as published, and got {said!r}"
    if patient.model.dtype == torch.float32:
        return fail(found, "fetch model and picture again; the other checks may tell more.")
    return warn(found, "run this check with --dtype float32: there it has to be the same.")


def published_caption(name: str) -> str | None:
    """What is published for the model, by its hub id or a directory of the same last name."""
    last = PurePath(name).name
    return next((text for key, text in PUBLISHED.items() if PurePath(key).name == last), None)


def _drawn(patient: Patient) -> Outcome:
    picture = patient.pictures[0]
    said = _caption(patient, picture, 1)
    if said == picture.caption:
        return ok(f"{said!r}, which is true of the drawn picture {picture.name}")
    return fail(
        f"expected {picture.caption!r}, which is true of the drawn picture {picture.name}, and "
        f"got {said!r}",
        "install blip2cli again; if it stays, report it with what doctor --json says.",
    )


def _caption(patient: Patient, picture: Picture, beams: int) -> str:
    model = patient.model
    features = model.features(to_uint8(picture.image, model.spec)[None])
    options = DecodeOptions(num_beams=beams)
    return model.generate(features, [Prompt(0, None, picture.name)], options)[0][0].text
