"""The embedded model chooses what is true, as transformers' own forward scores it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration

from blip2cli.images.loader import LoadedBatch, load_batches
from blip2cli.images.preprocess import normalize
from blip2cli.model.embedded import embedded_path
from blip2cli.model.prompts import Prompt
from blip2cli.model.quiet import hushed
from blip2cli.model.wrapper import Blip2
from blip2cli.options import LoaderOptions, ModelOptions, SourceOptions
from blip2cli.sources import open_sources
from blip2cli.tasks import AskTask
from blip2cli.tasks.questions import from_texts

SAMPLES = Path(__file__).parents[2] / "sample_images"
CHOICES = ("one", "two", "three", "two cats", "two cats and a pizza", "a cake, a ball and a guitar")


@pytest.fixture(scope="module")
def tiny() -> Blip2:
    return Blip2.load(ModelOptions("tiny", device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def batch(tiny: Blip2) -> LoadedBatch:
    refs = open_sources(SourceOptions((str(SAMPLES),)))
    with load_batches(refs, tiny.spec, LoaderOptions(batch_size=16, workers=0)) as batches:
        return next(batches)


def test_likelihoods_are_those_of_transformers(tiny: Blip2, batch: LoadedBatch) -> None:
    with hushed():
        theirs = Blip2ForConditionalGeneration.from_pretrained(embedded_path("tiny")).eval()
    features = tiny.features(batch.pixels)
    text = "Question: what is in the picture? Answer:"
    images = (0, 1, 8)
    found = tiny.score(features, [Prompt(i, text, "") for i in images], [CHOICES] * 3)
    filler = [theirs.config.image_token_index] * theirs.config.num_query_tokens
    prompt = list(tiny.codec.encode(text))
    for image, likelihoods in zip(images, found, strict=True):
        values = normalize(batch.pixels[image : image + 1], tiny.spec, torch.float32)
        for choice, likelihood in zip(CHOICES, likelihoods, strict=True):
            whole = [*tiny.codec.encode(f"{text} {choice}"), theirs.config.text_config.eos_token_id]
            answer = whole[len(prompt) :]
            ids = torch.tensor([filler + whole])
            with torch.inference_mode():
                out = theirs(
                    pixel_values=values, input_ids=ids, attention_mask=torch.ones_like(ids)
                )
            logits = out.logits[0, len(filler) + len(prompt) - 1 : -1]
            said = logits.log_softmax(-1).gather(1, torch.tensor(answer)[:, None])
            assert likelihood.tokens == len(answer)
            assert likelihood.total == pytest.approx(said.sum().item(), abs=1e-4), choice


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
