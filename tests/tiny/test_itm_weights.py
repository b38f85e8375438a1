"""The shipped tiny-itm: loadable by plain transformers, and right nearly always."""

from __future__ import annotations

import json

import pytest
import torch
from transformers import AutoProcessor, Blip2ForImageTextRetrieval

from tests.tiny.helpers import WEIGHTS, check_card, check_float32, load_tiny
from training.evaluate import held_out_scenes
from training.gallery import embed_all
from training.matching import CaptionMaker, MatchScores, evaluate

FOLDER = WEIGHTS / "tiny-itm"


@pytest.fixture(scope="module")
def model() -> Blip2ForImageTextRetrieval:
    loaded: Blip2ForImageTextRetrieval = Blip2ForImageTextRetrieval.from_pretrained(FOLDER)
    return loaded.eval()


@pytest.fixture(scope="module")
def scores(model: Blip2ForImageTextRetrieval) -> MatchScores:
    # Another seed than the training script's: scenes that nothing was ever chosen by.
    examples = held_out_scenes(500, seed=424_242)
    image_embeds, _ = embed_all(load_tiny(), [pixels for pixels, _ in examples])
    maker = CaptionMaker(AutoProcessor.from_pretrained(FOLDER).tokenizer)
    return evaluate(model, maker, image_embeds, [scene for _, scene in examples])


@pytest.mark.external
def test_the_right_caption_comes_first_of_a_hundred(scores: MatchScores) -> None:
    assert scores.texts >= 0.90, str(scores)


@pytest.mark.external
def test_the_right_picture_comes_first_of_a_hundred(scores: MatchScores) -> None:
    assert scores.images >= 0.90, str(scores)


@pytest.mark.external
def test_nearly_right_captions_are_told_from_right_ones(scores: MatchScores) -> None:
    assert scores.matching >= 0.95, str(scores)
    # No kind of mistake hides behind the others.
    assert min(scores.by_change.values()) >= 0.90, str(scores)


def test_it_sees_with_the_eyes_of_tiny(model: Blip2ForImageTextRetrieval) -> None:
    theirs = load_tiny().vision_model.state_dict()
    for name, weight in model.vision_model.state_dict().items():
        assert torch.equal(weight, theirs[name]), name


def test_it_is_computed_in_float32(model: Blip2ForImageTextRetrieval) -> None:
    check_float32(model, FOLDER)
    config = json.loads((FOLDER / "config.json").read_text())
    assert config["architectures"] == ["Blip2ForImageTextRetrieval"]


def test_the_card_is_complete() -> None:
    check_card(FOLDER, (0.90, 0.90, 0.95, 0.90, 0.90, 0.90), "Salesforce/blip2-itm-vit-g")
