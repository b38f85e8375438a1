"""The shipped checkpoint: loadable by plain transformers, and right nearly always."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoProcessor, Blip2ForConditionalGeneration

import blip2cli.tiny
from tests.tiny.helpers import check_card, check_float32
from training.data import Packer
from training.easyvqa import load_split
from training.evaluate import Scores, evaluate, exactly_right, held_out_scenes
from training.questions import side_questions
from training.texts import question_text

WEIGHTS = Path(blip2cli.tiny.__file__).parent / "weights" / "tiny"


@pytest.fixture(scope="module")
def model() -> Blip2ForConditionalGeneration:
    return Blip2ForConditionalGeneration.from_pretrained(WEIGHTS).eval()


@pytest.fixture(scope="module")
def scores(model: Blip2ForConditionalGeneration) -> Scores:
    packer = Packer(AutoProcessor.from_pretrained(WEIGHTS).tokenizer)
    # Another seed than the training script's: scenes that nothing was ever chosen by.
    return evaluate(model, packer, held_out_scenes(500, seed=424_242), load_split("test"))


@pytest.mark.external
def test_captions_of_unseen_scenes(scores: Scores) -> None:
    assert scores.captions >= 0.95, str(scores)


@pytest.mark.external
def test_answers_about_unseen_scenes(scores: Scores) -> None:
    assert scores.questions >= 0.95, str(scores)


@pytest.mark.external
def test_left_and_right_are_told_apart(model: Blip2ForConditionalGeneration) -> None:
    """On their own: among all questions they are few enough to hide that they are guessed."""
    packer = Packer(AutoProcessor.from_pretrained(WEIGHTS).tokenizer)
    scenes, rng = held_out_scenes(300, seed=424_242), random.Random(0)
    texts = [[question_text(*each) for each in side_questions(rng, scene)] for _, scene in scenes]
    right = exactly_right(model, packer, [pixels for pixels, _ in scenes], texts)
    answers = [each for scene in right for each in scene]
    assert len(answers) > 100
    assert np.mean(answers) >= 0.95, np.mean(answers)


@pytest.mark.external
def test_the_whole_test_split_of_easy_vqa(scores: Scores) -> None:
    assert scores.tried[2] == 9673
    assert scores.easy_vqa >= 0.995, str(scores)


def test_it_is_small() -> None:
    assert sum(path.stat().st_size for path in WEIGHTS.iterdir()) <= 8_000_000


def test_it_is_computed_in_float32(model: Blip2ForConditionalGeneration) -> None:
    check_float32(model, WEIGHTS)


def test_the_key_bias_is_zero(model: Blip2ForConditionalGeneration) -> None:
    width = model.config.vision_config.hidden_size
    for layer in model.vision_model.encoder.layers:
        assert not layer.self_attn.qkv.bias[width : 2 * width].any()
        assert layer.self_attn.qkv.bias[:width].any()


def test_the_card_is_complete() -> None:
    check_card(WEIGHTS, (0.95, 0.95, 0.995), "Salesforce/blip2-opt-2.7b")
