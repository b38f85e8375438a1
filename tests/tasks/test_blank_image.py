"""The blank image: pictures of that colour are answered alike, and each question is asked once."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

from blip2cli.images.preprocess import PixelSpec, normalize
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import AskOptions
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.blank_image import BlankScores, blank_pixels
from blip2cli.tasks.prompting import PreparedQuestion
from blip2cli.tasks.questions import from_texts
from tests.tasks.helpers import load

CHOICES = ("a", "a cat", "a cat and a pizza", "two")
TASK = AskTask(
    from_texts(["what is it?", "how many cats?"]), AskOptions(choice_scores=True), choices=CHOICES
)


class CountingModel:
    """The model, which counts what is computed with it."""

    def __init__(self, model: Blip2) -> None:
        self._model = model
        self.images: list[int] = []
        self.scored: list[tuple[str | None, ...]] = []
        self.failure: Exception | None = None
        self.go, self.entered = threading.Event(), threading.Semaphore(0)
        self.go.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def features(self, pixels: torch.Tensor) -> Any:
        self.images.append(len(pixels))
        return self._model.features(pixels)

    def score(self, features: Any, prompts: Sequence[Prompt], choices: Any) -> Any:
        self.scored.append(tuple(prompt.text for prompt in prompts))
        self.entered.release()
        assert self.go.wait(60)
        if self.failure is not None:
            raise self.failure
        return self._model.score(features, prompts, choices)


def asked(*texts: str, choices: tuple[str, ...] = CHOICES) -> list[PreparedQuestion]:
    return [
        PreparedQuestion(Prompt(n, text, f"{n}"), text, choices) for n, text in enumerate(texts)
    ]


def test_it_is_the_mean_colour() -> None:
    spec = PixelSpec(8, 12)
    pixels = blank_pixels(spec)
    assert pixels.shape == (1, 3, 8, 12)
    assert pixels[0, :, 0, 0].tolist() == [123, 117, 104]
    assert normalize(pixels, spec).abs().max() < 0.5 / 255 / min(spec.std)
    plain = replace(spec, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), rescale_factor=1.0)
    assert blank_pixels(plain).max() == 0  # a model that normalises nothing


def test_a_picture_of_that_colour_has_the_log_probabilities_of_the_blank_image(
    tmp_path: Path, model: Blip2
) -> None:
    folder = tmp_path / "blank"
    folder.mkdir()
    Image.new("RGB", (31, 17), (123, 117, 104)).save(folder / "blank.png")
    rows = TASK.rows(model, load(folder, model))
    for row in rows:
        scores: Any = row["choice_scores"]
        assert [one["choice"] for one in scores] == list(CHOICES)
        assert [one["logprob"] for one in scores] == [one["blank_logprob"] for one in scores]
    pmi = replace(TASK, options=AskOptions(choice_norm="pmi")).rows(model, load(folder, model))
    shares: Any = pmi[0]["probabilities"]
    assert {one["probability"] for one in shares} == {0.25}


def test_a_question_is_asked_once_whatever_images_there_are(mixed: Path, model: Blip2) -> None:
    batch = load(mixed, model)
    counting: Any = CountingModel(model)
    rows = [TASK.rows(counting, one) for one in (batch, batch)]
    assert rows[0] == rows[1] == TASK.rows(model, batch)
    assert counting.images == [5, 1, 5]
    assert [len(prompts) for prompts in counting.scored] == [10, 2, 10]


def test_two_threads_ask_a_question_once(model: Blip2) -> None:
    counting: Any = CountingModel(model)
    scores = BlankScores()
    counting.go.clear()
    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(scores.of, counting, asked("one", "two"))
        assert counting.entered.acquire(timeout=60)
        second = pool.submit(scores.of, counting, asked("two", "three"))
        assert counting.entered.acquire(timeout=60)
        counting.go.set()
        assert first.result()[1] == second.result()[0]
    assert counting.scored == [("one", "two"), ("three",)]
    assert counting.images == [1]


def test_who_waits_for_a_question_that_cannot_be_scored_fails_as_well(model: Blip2) -> None:
    counting: Any = CountingModel(model)
    scores = BlankScores()
    counting.failure = RuntimeError("out of memory")
    counting.go.clear()
    with ThreadPoolExecutor(2) as pool:
        both = [pool.submit(scores.of, counting, asked("one")) for _ in range(2)]
        counting.go.set()
        for one in both:
            with pytest.raises(RuntimeError, match="out of memory"):
                one.result()
    counting.failure = None
    assert scores.of(counting, asked("one")) == BlankScores().of(model, asked("one"))


def test_what_is_held_has_a_limit(model: Blip2) -> None:
    counting: Any = CountingModel(model)
    scores = BlankScores(most=2 * len(CHOICES))
    for text in ("one", "two", "one", "three", "one", "two"):
        assert scores.of(counting, asked(text)) == BlankScores().of(model, asked(text))
    assert counting.scored == [("one",), ("two",), ("three",), ("two",)]
    everything = scores.of(counting, asked("four", "five", "six", "four"))  # more than fits
    assert everything == BlankScores().of(model, asked("four", "five", "six", "four"))
    assert counting.images == [1]


def test_scores_do_not_depend_on_what_is_asked_together(model: Blip2) -> None:
    together = BlankScores().of(model, asked("one", "two", "a longer question?"))
    for number, text in enumerate(("one", "two", "a longer question?")):
        assert BlankScores().of(model, asked(text)) == [together[number]]
