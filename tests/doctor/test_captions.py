"""Known captions: those of LAVIS for its own picture, and those of drawn pictures."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from blip2cli.doctor import captions
from blip2cli.doctor.captions import known_caption, published_caption
from blip2cli.doctor.model_under_test import Patient, Picture
from blip2cli.model.checkpoint.directory import inspect_checkpoint
from blip2cli.model.placement.dtype import Placement
from blip2cli.tiny.samples import SAMPLES, draw_sample
from tests.doctor.conftest import Sound


def patient(
    path: Path, name: str, image: Picture | None, dtype: torch.dtype = torch.float32
) -> Patient:
    image_of, scene = draw_sample(SAMPLES[1])
    drawn = (Picture("cats.png", image_of, scene.caption),)
    placement = Placement(torch.device("cpu"), dtype, "asked")
    return Patient(name, inspect_checkpoint(path), placement, drawn, image)


def elephant(name: str) -> Picture:
    return Picture(name, draw_sample(SAMPLES[2])[0])


def test_the_embedded_model_says_what_is_drawn(opt: Sound) -> None:
    said = known_caption(patient(opt.path, "tiny", None))
    assert said.status == "ok"
    assert "'two cats and a pizza on a blue background'" in said.found


def test_an_embedded_model_that_says_something_else_fails(opt: Sound) -> None:
    seen = patient(opt.path, "tiny", None)
    with torch.no_grad():
        seen.model.model.language_projection.weight.neg_()
    said = known_caption(seen)
    assert said.status == "fail"
    assert said.found.startswith("expected 'two cats and a pizza on a blue background'")
    assert "install blip2cli again" in (said.mend or "")


def test_a_published_caption_is_expected_of_the_published_model(
    opt: Sound, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = patient(opt.path, "Salesforce/blip2-opt-2.7b", elephant("Merlion.png"))
    said = known_caption(seen)
    assert said.status == "fail"
    assert said.found == (
        "expected 'the merlion fountain in singapore', as published, and got "
        "'an elephant on a green background'"
    )
    assert "fetch model and picture again" in (said.mend or "")
    right = {"Salesforce/blip2-opt-2.7b": "an elephant on a green background"}
    monkeypatch.setattr(captions, "PUBLISHED", right)
    assert known_caption(seen).status == "ok"


def test_another_caption_in_a_lower_precision_is_a_warning(opt: Sound) -> None:
    name = "models/blip2-flan-t5-xl"
    seen = patient(opt.path, name, elephant("merlion.png"), torch.bfloat16)
    said = known_caption(seen)
    assert said.status == "warn"
    assert "expected 'marina bay sands, singapore', as published" in said.found
    assert "--dtype float32" in (said.mend or "")


def test_of_other_pictures_and_models_the_caption_is_only_shown(opt: Sound) -> None:
    for name, file in (("mine/model", "merlion.png"), ("Salesforce/blip2-opt-2.7b", "cat.jpg")):
        said = known_caption(patient(opt.path, name, elephant(file)))
        assert said.status == "skipped"
        assert said.found.startswith(f"{file}: 'an elephant on a green background'; no caption")


def test_without_a_picture_it_is_said_which_one_is_needed(opt: Sound) -> None:
    said = known_caption(patient(opt.path, "Salesforce/blip2-opt-6.7b", None))
    assert said.status == "skipped"
    assert "--image merlion.png" in said.found
    assert known_caption(patient(opt.path, "mine/model", None)).status == "skipped"


def test_models_are_known_by_their_last_name() -> None:
    expected = "a statue of a mermaid spraying water into the air"
    for name in ("Salesforce/blip2-opt-2.7b-coco", "/data/models/blip2-opt-2.7b-coco"):
        assert published_caption(name) == expected
    assert published_caption("Salesforce/blip2-itm-vit-g") is None
