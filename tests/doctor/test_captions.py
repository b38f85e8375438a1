"""Known captions: those of LAVIS for its own picture, and those of drawn pictures."""

from __future__ import annotations

from pathlib import Path

import torch

from blip2cli.doctor.captions import known_caption, published_caption
from blip2cli.doctor.model_under_test import ModelUnderTest
from blip2cli.doctor.pictures import Picture
from blip2cli.errors import option
from blip2cli.model.checkpoint.weight_files import inspect_checkpoint
from blip2cli.model.placement.dtype import Placement
from blip2cli.tiny.samples import SAMPLES, draw_sample
from tests.doctor.conftest import Sound


def model_named(
    path: Path, name: str, image: Picture | None, dtype: torch.dtype = torch.float32
) -> ModelUnderTest:
    image_of, scene = draw_sample(SAMPLES[1])
    drawn = (Picture("cats.png", image_of, scene.caption),)
    placement = Placement(torch.device("cpu"), dtype, "asked")
    return ModelUnderTest(name, inspect_checkpoint(path), placement, drawn, image)


def elephant(name: str) -> Picture:
    return Picture(name, draw_sample(SAMPLES[2])[0])


def test_the_embedded_model_captions_the_drawn_picture_truly(opt: Sound) -> None:
    outcome = known_caption(model_named(opt.path, "tiny", None))
    assert outcome.status == "ok"
    assert "'two cats and a pizza on a blue background'" in outcome.found


def test_an_embedded_model_with_another_caption_fails(opt: Sound) -> None:
    subject = model_named(opt.path, "tiny", None)
    with torch.no_grad():
        subject.model.model.language_projection.weight.neg_()
    outcome = known_caption(subject)
    assert outcome.status == "fail"
    assert outcome.found.startswith("expected 'two cats and a pizza on a blue background'")
    assert "install blip2cli again" in (outcome.remedy or "")


def test_a_published_caption_is_expected_of_the_published_model(opt: Sound) -> None:
    subject = model_named(opt.path, "Salesforce/blip2-opt-2.7b", elephant("Merlion.png"))
    outcome = known_caption(subject)
    assert outcome.status == "fail"
    assert outcome.found == (
        "expected 'the merlion fountain in singapore', as published, and got "
        "'an elephant on a green background'"
    )
    assert "fetch model and picture again" in (outcome.remedy or "")
    right = {"Salesforce/blip2-opt-2.7b": "an elephant on a green background"}
    assert known_caption(subject, right).status == "ok"


def test_another_caption_in_a_lower_precision_is_a_warning(opt: Sound) -> None:
    name = "models/blip2-flan-t5-xl"
    subject = model_named(opt.path, name, elephant("merlion.png"), torch.bfloat16)
    outcome = known_caption(subject)
    assert outcome.status == "warn"
    assert "expected 'marina bay sands, singapore', as published" in outcome.found
    assert "float32: there it has to be the same" in (outcome.remedy or "")


def test_of_other_pictures_and_models_the_caption_is_only_shown(opt: Sound) -> None:
    for name, file in (("mine/model", "merlion.png"), ("Salesforce/blip2-opt-2.7b", "cat.jpg")):
        outcome = known_caption(model_named(opt.path, name, elephant(file)))
        assert outcome.status == "skipped"
        assert outcome.found.startswith(f"{file}: 'an elephant on a green background'; no caption")


def test_without_a_picture_the_finding_names_the_one_needed(opt: Sound) -> None:
    outcome = known_caption(model_named(opt.path, "Salesforce/blip2-opt-6.7b", None))
    assert outcome.status == "skipped"
    assert f"{option('image')} merlion.png" in outcome.found
    assert known_caption(model_named(opt.path, "mine/model", None)).status == "skipped"


def test_models_are_known_by_their_last_name() -> None:
    expected = "a statue of a mermaid spraying water into the air"
    for name in ("Salesforce/blip2-opt-2.7b-coco", "/data/models/blip2-opt-2.7b-coco"):
        assert published_caption(name) == expected
    assert published_caption("Salesforce/blip2-itm-vit-g") is None
