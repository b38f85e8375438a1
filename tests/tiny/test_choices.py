"""The embedded model chooses what is true, as transformers' own forward scores it."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration

from blip2cli.images.batch_stream import BatchStream, LoadedBatch
from blip2cli.model.checkpoint.embedded import EMBEDDED, embedded_path
from blip2cli.model.tokenizer.fill_prompt import Prompt, question_prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    AskOptions,
    DecodeOptions,
    LoaderOptions,
    ModelOptions,
    SourceOptions,
)
from blip2cli.sources import open_sources
from blip2cli.system.library_logging import silence_libraries
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.blank_image import blank_pixels
from blip2cli.tasks.questions import from_texts
from tests.model.conftest import Pair
from tests.model.reference_scores import reference_score

SAMPLES = Path(__file__).parents[2] / "sample_images"
CHOICES = ("one", "two", "three", "two cats", "two cats and a pizza", "a cake, a ball and a guitar")


@pytest.fixture(scope="module")
def tiny() -> Blip2:
    return Blip2.load(ModelOptions("tiny", device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def batch(tiny: Blip2) -> LoadedBatch:
    return load(tiny)


def load(model: Blip2) -> LoadedBatch:
    refs = open_sources(SourceOptions((str(SAMPLES),)))
    with BatchStream(refs, model.spec, LoaderOptions(batch_size=16, workers=0)) as batches:
        return next(batches)


@pytest.mark.parametrize("name", ["tiny", "tiny-t5"])
def test_scores_are_those_of_transformers(name: str) -> None:
    if name not in EMBEDDED:
        pytest.skip(f"the model {name} is not in this installation")
    ours = Blip2.load(ModelOptions(name, device="cpu", dtype="float32"))
    with silence_libraries():
        theirs = Blip2ForConditionalGeneration.from_pretrained(embedded_path(name)).eval()
    batch = load(ours)
    blank = len(batch.pixels)
    pixels = torch.cat((batch.pixels, blank_pixels(ours.spec)))
    pair = Pair(embedded_path(name), ours, theirs, pixels, ours.features(pixels))
    text = "Question: what is in the picture? Answer:"
    images = (0, 1, 8)
    found = ours.score(pair.features, [Prompt(i, text, "") for i in images], [CHOICES] * 3)
    reference = {
        image: [reference_score(pair, image, text, choice) for choice in CHOICES]
        for image in (*images, blank)
    }
    options = AskOptions(template="Question: {question} Answer:", choice_scores=True)
    task = AskTask(from_texts(["what is in the picture?"]), options, choices=CHOICES)
    rows = task.rows(ours, batch)
    pmi = replace(task, options=replace(options, choice_norm="pmi")).rows(ours, batch)
    for image, likelihoods in zip(images, found, strict=True):
        scores: Any = rows[image]["choice_scores"]
        said = zip(CHOICES, likelihoods, scores, reference[image], reference[blank], strict=True)
        for choice, likelihood, score, (total, tokens), (without, _) in said:
            assert score["choice"] == choice
            assert likelihood.tokens == score["tokens"] == tokens
            assert likelihood.total == pytest.approx(total, abs=1e-4), choice
            assert score["logprob"] == pytest.approx(total, abs=1e-4), choice
            assert score["blank_logprob"] == pytest.approx(without, abs=1e-4), choice
        written = sum(math.exp(total) for total, _ in reference[image])
        assert 0 < written <= 1 + 1e-6
        assert rows[image]["choice_mass"] == pytest.approx(written, rel=1e-4)
        gains = torch.tensor(reference[image])[:, 0] - torch.tensor(reference[blank])[:, 0]
        shares: Any = pmi[image]["probabilities"]
        expected = gains.softmax(0).tolist()
        assert [one["probability"] for one in shares] == pytest.approx(expected, abs=1e-4)


@pytest.mark.parametrize("name", ["tiny", "tiny-t5", "tiny-instruct"])
def test_what_a_model_writes_has_the_likelihood_it_was_written_with(name: str) -> None:
    if name not in EMBEDDED:
        pytest.skip(f"the model {name} is not in this installation")
    model = Blip2.load(ModelOptions(name, device="cpu", dtype="float32"))
    batch = load(model)
    features = model.features(batch.pixels)
    text = question_prompt("auto", "how many cats are there?", model.family)
    prompts = [Prompt(image, text, "") for image in range(len(batch.pixels))]
    written = [texts[0] for texts in model.generate(features, prompts, DecodeOptions())]
    assert "two" in {one.text for one in written}
    found = model.score(features, prompts, [(one.text, "a horse on") for one in written])
    for one, (likelihood, _) in zip(written, found, strict=True):
        assert likelihood.tokens == len(one.tokens)
        assert likelihood.mean == pytest.approx(one.logprob, abs=1e-4)


def test_what_is_true_is_chosen(tiny: Blip2, batch: LoadedBatch) -> None:
    counts = {"cats.png": "two", "farm/cows.jpg": "zero", "night.png": "zero"}
    task = AskTask(
        from_texts(["how many cats are there?"]), choices=("zero", "one", "two", "three")
    )
    rows = {str(row["file_name"]): row for row in task.rows(tiny, batch)}
    assert {name: rows[name]["answer"] for name in counts} == counts
    task = AskTask(from_texts(["is there a cat?"]), choices=("no", "yes"))
    answers = {str(row["file_name"]): row["answer"] for row in task.rows(tiny, batch)}
    assert [name for name, answer in answers.items() if answer == "yes"] == ["cats.png"]


def test_a_conversation_makes_sense(tiny: Blip2, batch: LoadedBatch) -> None:
    chain = ["what is in the picture?", "are there {answer}?", "{history} what color is it?"]
    rows = [r for r in AskTask(from_texts(chain)).rows(tiny, batch) if r["file_name"] == "cats.png"]
    assert rows[0]["answer"] == "two cats and a pizza"
    assert (rows[1]["question"], rows[1]["answer"]) == ("are there two cats and a pizza?", "yes")
