"""The shipped tiny-instruct: loadable by plain transformers, and right nearly always."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import InstructBlipForConditionalGeneration, InstructBlipProcessor

from tests.tiny.helpers import WEIGHTS, check_card, check_float32
from training.evaluate import AllScores, embed, held_out_scenes, score_all
from training.instruct import InstructionMaker, instruct_reader, show
from training.texts import T5_FORMS, Text, question_text

FOLDER = WEIGHTS / "tiny-instruct"
BARS = (0.95, 0.95, 0.95, 0.995)  # captions, questions, left and right, easy-VQA: as of tiny-t5


@pytest.fixture(scope="module")
def model() -> InstructBlipForConditionalGeneration:
    loaded: InstructBlipForConditionalGeneration
    loaded = InstructBlipForConditionalGeneration.from_pretrained(FOLDER)
    return loaded.eval()


@pytest.fixture(scope="module")
def processor() -> InstructBlipProcessor:
    loaded: InstructBlipProcessor = InstructBlipProcessor.from_pretrained(FOLDER)
    return loaded


def shares(scores: AllScores) -> tuple[float, ...]:
    texts = scores.texts
    return texts.captions, texts.questions, scores.sides, texts.easy_vqa


@pytest.mark.external
def test_it_is_right_about_unseen_pictures(
    model: InstructBlipForConditionalGeneration, processor: InstructBlipProcessor
) -> None:
    # Another seed than the training script's: scenes that nothing was ever chosen by.
    judge = instruct_reader(model, processor)
    scores = score_all(judge, 500, 1000, T5_FORMS[0], seed=424_242)
    assert scores.texts.tried == (500, 1000, 9673)
    assert scores.side_count > 100
    assert all(share >= bar for share, bar in zip(shares(scores), BARS, strict=True)), str(scores)


def test_its_qformer_reads_the_prompt(
    model: InstructBlipForConditionalGeneration, processor: InstructBlipProcessor
) -> None:
    # Of one picture it shows the language model something else for each prompt. Not much else:
    # that one reads the prompt, too.
    ((pixels, _),) = held_out_scenes(1)
    questions = ("is there a dog?", "what color is the background?")
    maker = InstructionMaker(processor)
    texts = [Text("", "x"), *(question_text(each, "x", T5_FORMS[0]) for each in questions)]
    with torch.inference_mode():
        image = embed(model, torch.from_numpy(np.stack([pixels] * 3)).permute(0, 3, 1, 2))
        shown = show(model, image, maker.rows(texts), maker.start)
    for one, other in ((0, 1), (1, 2), (0, 2)):
        assert (shown[one] - shown[other]).std() > 0.005 * shown[one].std()


def test_it_sees_as_tiny_and_writes_as_tiny_t5(
    model: InstructBlipForConditionalGeneration,
) -> None:
    own = model.state_dict()
    for file in ("tiny/vision.safetensors", "tiny-t5/language.safetensors"):
        for name, weight in load_file(WEIGHTS / file).items():
            assert torch.equal(weight.float(), own[name]), name


def test_it_is_computed_in_float32(model: InstructBlipForConditionalGeneration) -> None:
    check_float32(model, FOLDER)


def test_the_card_is_complete() -> None:
    check_card(FOLDER, BARS, "Salesforce/instructblip-flan-t5-xl")
