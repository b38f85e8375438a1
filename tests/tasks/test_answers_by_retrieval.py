"""Zero-shot classification: a retrieval model chooses the text that fits an image."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers.models.blip_2.modeling_blip_2 import Blip2ForImageTextRetrieval

from blip2cli.errors import OptionError
from blip2cli.images.batch_stream import LoadedBatch
from blip2cli.images.preprocess import normalize
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    AskOptions,
    LoaderOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.system.library_logging import silence_libraries
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.questions import Question, Questions, from_texts
from tests.checkpoints import QUERIES, tiny_random_itm
from tests.tasks.helpers import load

CHOICES = ("two cats", "a tree", "a photo of a house and four birds")
NO_QUESTION = Questions()


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_random_itm(tmp_path_factory.mktemp("itm") / "model")


@pytest.fixture(scope="module")
def itm(directory: Path) -> Blip2:
    return Blip2.load(ModelOptions(str(directory), device="cpu", dtype="float32"))


@pytest.fixture
def batch(mixed: Path, itm: Blip2) -> LoadedBatch:
    return load(mixed, itm)


@torch.inference_mode()
def transformers_logits(directory: Path, itm: Blip2, pixels: torch.Tensor, texts: list[str]) -> Any:
    """transformers' contrastive and matching logits of one image with one text at a time."""
    with silence_libraries():
        theirs = Blip2ForImageTextRetrieval.from_pretrained(directory).eval()
    values = normalize(pixels[None], itm.spec, torch.float32)
    contrast, matching = [], []
    for text in texts:
        ids = [theirs.config.image_token_index] * QUERIES + list(itm.codec.encode(text))
        inputs = {
            "pixel_values": values,
            "input_ids": torch.tensor([ids]),
            "attention_mask": torch.ones(1, len(ids), dtype=torch.long),
        }
        contrast.append(theirs(**inputs).logits_per_image[0, 0].item())
        match = theirs(**inputs, use_image_text_matching_head=True).logits_per_image[0]
        matching.append(match.tolist())
    return contrast, matching


def shares(row: Any) -> list[float]:
    return [one["probability"] for one in row["probabilities"]]


@pytest.mark.parametrize(
    ("questions", "template", "texts"),
    [
        (NO_QUESTION, "auto", list(CHOICES)),
        (NO_QUESTION, "a photo of {choice}", [f"a photo of {choice}" for choice in CHOICES]),
        (from_texts(["what is it?"]), "auto", [f"what is it? {choice}" for choice in CHOICES]),
        (
            from_texts(["what is it?"]),
            "{choice}: {question}",
            [f"{choice}: what is it?" for choice in CHOICES],
        ),
    ],
)
def test_probabilities_are_those_of_transformers_scores(
    questions: Questions,
    template: str,
    texts: list[str],
    directory: Path,
    itm: Blip2,
    batch: LoadedBatch,
) -> None:
    rows = (
        AskTask(questions, AskOptions(template=template), choices=CHOICES).fit(itm).rows(itm, batch)
    )
    matched = AskTask(questions, AskOptions(template=template, match=True), choices=CHOICES).rows(
        itm, batch
    )
    for number in (0, 3):
        contrast, matching = transformers_logits(directory, itm, batch.pixels[number], texts)
        expected = torch.tensor(contrast).div(0.07).softmax(0).tolist()
        assert shares(rows[number]) == pytest.approx(expected, abs=1e-4)
        best = expected.index(max(expected))
        assert rows[number]["answer"] == CHOICES[best]
        assert rows[number]["logprob"] == pytest.approx(math.log(expected[best]), abs=1e-3)
        odds = torch.tensor([yes - no for no, yes in matching])
        assert shares(matched[number]) == pytest.approx(odds.softmax(0).tolist(), abs=1e-4)
        best = int(odds.argmax())
        assert matched[number]["answer"] == CHOICES[best]
        logprob = torch.tensor(matching[best]).log_softmax(0)[1].item()
        assert matched[number]["logprob"] == pytest.approx(logprob, abs=1e-4)
    question = questions.common[0].text if questions.common else ""
    assert {row["question"] for row in rows} == {question}
    assert len({str(shares(row)) for row in rows}) == 5
    assert {row["choice_mass"] for row in (*rows, *matched)} == {None}


def test_rows_are_the_same_at_any_batch(mixed: Path, tmp_path: Path, itm: Blip2) -> None:
    for match in (False, True):
        task = AskTask(NO_QUESTION, AskOptions(match=match), choices=CHOICES)
        texts = []
        for size in (1, 3, 16):
            out = tmp_path / f"{match}{size}.jsonl"
            options = RunOptions(
                SourceOptions((str(mixed),)),
                loader=LoaderOptions(batch_size=size, workers=0),
                output=OutputOptions(str(out), errors="inline"),
            )
            run(Job(ImageItems(), task, options, load=lambda _: itm))
            texts.append(out.read_text())
        assert texts[0] == texts[1] == texts[2]
        rows = [json.loads(line) for line in texts[0].splitlines()]
        assert [row["question_id"] for row in rows] == ["1"] * 6
        assert all(sum(shares(row)) == pytest.approx(1, abs=1e-6) for row in rows if row["answer"])


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (AskTask(from_texts(["what?"])), "choose from with choices"),
        (
            AskTask(NO_QUESTION, AskOptions(choice_norm="mean"), choices=CHOICES),
            "choice_norm is about the tokens",
        ),
        (
            AskTask(NO_QUESTION, AskOptions(choice_norm="pmi"), choices=CHOICES),
            "choice_norm is about the tokens",
        ),
        (
            AskTask(NO_QUESTION, AskOptions(choice_scores=True), choices=CHOICES),
            "choice_scores is about the tokens",
        ),
        (
            AskTask(from_texts(["a?"]), AskOptions(template="{question}"), choices=CHOICES),
            "does not hold {choice}",
        ),
        (
            AskTask(from_texts(["a?"]), AskOptions(template="{choice}"), choices=CHOICES),
            "does not hold {question}",
        ),
        (
            AskTask(NO_QUESTION, AskOptions(template="{question} {choice}"), choices=CHOICES),
            "give one with question",
        ),
    ],
)
def test_a_retrieval_model_refuses_unfit_options_before_and_after_loading(
    task: AskTask, message: str, directory: Path, itm: Blip2
) -> None:
    for attempt in (lambda: task.check(str(directory), itm.family), lambda: task.fit(itm)):
        with pytest.raises(OptionError) as caught:
            attempt()
        assert message in str(caught.value)


@pytest.mark.parametrize(
    ("choices", "said"),
    [
        (("😀", "😡"), "cannot tell the choices '😀' and '😡' apart"),  # unknown both
        (("a tree", "Cat", "cat"), "cannot tell the choices 'Cat' and 'cat' apart"),
        (("two cats", "two  cats"), "cannot tell"),
        (("é", "e"), "cannot tell"),
        (("a tree", "\u200b"), r"has no token for the choice '\\u200b'"),
    ],
)
@pytest.mark.parametrize("template", ["auto", "a photo of {choice}"])
def test_choices_that_are_one_text_to_the_model_are_refused(
    template: str, choices: tuple[str, ...], said: str, itm: Blip2
) -> None:
    task = AskTask(NO_QUESTION, AskOptions(template=template), choices=choices)
    with pytest.raises(OptionError, match=said):
        task.fit(itm)
    if template == "auto":
        own = Questions((Question("what?", "1"), Question("who?", "2", choices=choices)))
        with pytest.raises(OptionError, match=said):
            AskTask(own, choices=CHOICES).fit(itm)


def test_choices_that_are_unlike_are_not_refused(itm: Blip2) -> None:
    AskTask(from_texts(["what is it?"]), choices=CHOICES).fit(itm)
    AskTask(NO_QUESTION, choices=("😀", "a tree")).fit(itm)
