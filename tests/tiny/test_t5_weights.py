"""The shipped tiny-t5: loadable by plain transformers, and right nearly always."""

from __future__ import annotations

import pytest
import torch
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from tests.tiny.helpers import WEIGHTS, check_card, check_float32, load_tiny
from training.easyvqa import load_split
from training.evaluate import Scores, held_out_scenes, score, score_sides
from training.t5_texts import Reader, RowMaker
from training.texts import T5_FORMS

FOLDER = WEIGHTS / "tiny-t5"


@pytest.fixture(scope="module")
def model() -> Blip2ForConditionalGeneration:
    loaded: Blip2ForConditionalGeneration = Blip2ForConditionalGeneration.from_pretrained(FOLDER)
    return loaded.eval()


@pytest.fixture(scope="module")
def judge(model: Blip2ForConditionalGeneration) -> Reader:
    return Reader(model, RowMaker(AutoProcessor.from_pretrained(FOLDER).tokenizer))


@pytest.fixture(scope="module")
def scores(judge: Reader) -> Scores:
    # Another seed than the training script's: scenes that nothing was ever chosen by.
    scenes = held_out_scenes(500, seed=424_242)
    return score(judge, scenes, load_split("test"), T5_FORMS[0])


@pytest.mark.external
def test_captions_of_unseen_scenes(scores: Scores) -> None:
    assert scores.captions >= 0.95, str(scores)


@pytest.mark.external
def test_answers_about_unseen_scenes(scores: Scores) -> None:
    assert scores.questions >= 0.95, str(scores)


@pytest.mark.external
def test_left_and_right_are_told_apart(judge: Reader) -> None:
    sides, count = score_sides(judge, held_out_scenes(300, seed=424_242), T5_FORMS[0])
    assert count > 100
    assert sides >= 0.95, sides


@pytest.mark.external
def test_the_whole_test_split_of_easy_vqa(scores: Scores) -> None:
    assert scores.tried[2] == 9673
    assert scores.easy_vqa >= 0.995, str(scores)


def test_it_sees_with_the_eyes_of_tiny(model: Blip2ForConditionalGeneration) -> None:
    theirs = load_tiny().state_dict()
    for name, weight in model.state_dict().items():
        if name.startswith(("vision_model", "qformer", "query_tokens")):
            assert torch.equal(weight, theirs[name]), name


def test_all_embedded_models_together_are_small() -> None:
    files = [path for path in WEIGHTS.rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) <= 20_000_000


def test_it_is_computed_in_float32(model: Blip2ForConditionalGeneration) -> None:
    check_float32(model, FOLDER)


def test_the_card_is_complete() -> None:
    check_card(FOLDER, (0.95, 0.95, 0.95, 0.995), "Salesforce/blip2-flan-t5-xl")
