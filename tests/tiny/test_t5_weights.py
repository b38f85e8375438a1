"""The shipped tiny-t5: loadable by plain transformers, and right nearly always."""

from __future__ import annotations

import json
import re

import pytest
import torch
from transformers import AutoProcessor, Blip2ForConditionalGeneration

from blip2cli.tiny.kinds import KINDS
from tests.tiny.helpers import WEIGHTS, load_tiny
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
    assert model.dtype == torch.float32
    assert json.loads((FOLDER / "config.json").read_text())["dtype"] == "float32"


def test_the_card_is_complete() -> None:
    card = (FOLDER / "README.md").read_text(encoding="utf-8")
    promised = [float(share) / 100 for share in re.findall(r"\| ([\d.]+)% \|", card)]
    assert len(promised) == 4
    assert all(share >= bar for share, bar in zip(promised, (0.95, 0.95, 0.95, 0.995), strict=True))
    assert "Salesforce/blip2-flan-t5-xl" in card
    assert "SIL Open Font" in card
    assert all(kind in card for kind in KINDS)
