"""Degenerate texts are flagged, and retried where the option says so."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from blip2cli.images.batch_stream import BatchStream, LoadedBatch
from blip2cli.model.families import OPT
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    DecodeOptions,
    LoaderOptions,
    ModelOptions,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.events import Finished, Summary
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.run import run
from blip2cli.sources import open_sources
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.degenerate import flag_of
from blip2cli.tasks.questions import from_texts
from blip2cli.tasks.text_generation import generate_texts

SAMPLES = Path(__file__).parents[2] / "sample_images"
# Without its end token, tiny repeats itself: "… on a red background on a red background …".
LONG = DecodeOptions(min_new_tokens=24, max_new_tokens=24)
AGAIN = DecodeOptions(min_new_tokens=24, max_new_tokens=24, retry_degenerate=True)


@pytest.fixture(scope="module")
def tiny() -> Blip2:
    return Blip2.load(ModelOptions("tiny", device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def batch(tiny: Blip2) -> LoadedBatch:
    refs = open_sources(SourceOptions((str(SAMPLES),), limit=6))
    with BatchStream(refs, tiny.spec, LoaderOptions(batch_size=16, workers=0)) as batches:
        return next(batches)


def test_captions_of_the_samples_have_no_flag(tiny: Blip2) -> None:
    refs = open_sources(SourceOptions((str(SAMPLES),)))
    with BatchStream(refs, tiny.spec, LoaderOptions(batch_size=16, workers=0)) as batches:
        rows = [row for batch in batches for row in CaptionTask().rows(tiny, batch)]
    assert len(rows) == 12
    assert {row["flag"] for row in rows} == {""}


def test_texts_without_an_end_token_are_flagged_as_repetition(
    tiny: Blip2, batch: LoadedBatch
) -> None:
    rows = CaptionTask(decode=LONG).rows(tiny, batch)
    assert [row["flag"] for row in rows].count("repetition") >= 4
    for row in rows:
        assert row["flag"] == flag_of(str(row["caption"]))


def test_a_good_second_attempt_replaces_a_loop(tiny: Blip2, batch: LoadedBatch) -> None:
    first = CaptionTask(decode=LONG).rows(tiny, batch)
    second = CaptionTask(decode=AGAIN).rows(tiny, batch)
    features = tiny.features(batch.pixels)
    retried = 0
    for number, (one, two) in enumerate(zip(first, second, strict=True)):
        if one["flag"] == "":
            assert two == one
        elif two["flag"] == "retried":
            retried += 1
            assert flag_of(str(two["caption"])) == ""
            attempts = [
                tiny.generate(features, [Prompt(number, None, "")], stricter)[0][0]
                for stricter in (
                    DecodeOptions(24, 24, no_repeat_ngram_size=3),
                    DecodeOptions(24, 24, no_repeat_ngram_size=2),
                )
            ]
            good = next(text for text in attempts if not flag_of(text.text))
            assert two["caption"] == good.text
            assert two["logprob"] == round(good.logprob, 6)
        else:
            assert two == one  # no attempt was better: the first stays, with its flag
    assert retried >= 3


def test_retries_do_not_depend_on_the_batch(tiny: Blip2, batch: LoadedBatch) -> None:
    task = CaptionTask(decode=AGAIN)
    refs = open_sources(SourceOptions((str(SAMPLES),), limit=6))
    with BatchStream(refs, tiny.spec, LoaderOptions(batch_size=1, workers=0)) as batches:
        one_by_one = [row for one in batches for row in task.rows(tiny, one)]
    assert one_by_one == task.rows(tiny, batch)


class Script:
    """A model that returns given texts, and records its calls."""

    family = OPT

    def __init__(self, *texts: str) -> None:
        self.texts = list(texts)
        self.calls: list[tuple[int, DecodeOptions]] = []

    def generate(self, features: object, prompts: list[Any], options: DecodeOptions) -> list[Any]:
        from blip2cli.model.wrapper import Generated

        self.calls.append((len(prompts), options))
        return [[Generated(self.texts.pop(0), (1,), -1.0)] for _ in prompts]


def generated(
    model: Script, count: int, options: DecodeOptions, question: str
) -> list[tuple[str, str]]:
    prompts = [Prompt(n, question, f"{n}") for n in range(count)]
    found = generate_texts(model, None, prompts, [question] * count, options)  # type: ignore[arg-type]
    return [(one.texts[0].text, one.flag) for one in found]


def test_only_flagged_texts_are_retried_until_one_is_good() -> None:
    model = Script("a cat", "no no no no", "what is it?", "x x x x", "a dog", "one two")
    options = DecodeOptions(retry_degenerate=True)
    assert generated(model, 3, options, "what is it?") == [
        ("a cat", ""),
        ("one two", "retried"),
        ("a dog", "retried"),
    ]
    sizes = [(count, options.no_repeat_ngram_size) for count, options in model.calls]
    assert sizes == [(3, 0), (2, 3), (1, 2)]


def test_without_a_good_attempt_the_first_text_stays() -> None:
    model = Script("no no no no", "x x x x", "y y y y")
    assert generated(model, 1, DecodeOptions(retry_degenerate=True), "a?") == [
        ("no no no no", "repetition")
    ]


def test_an_empty_text_is_retried_with_a_minimum_length() -> None:
    model = Script("", "...", "a dog")
    assert generated(model, 1, DecodeOptions(retry_degenerate=True), "a?") == [("a dog", "retried")]
    assert [options.min_new_tokens for _, options in model.calls] == [0, 3, 3]
    # Up to max_new_tokens, with the options of the user.
    model = Script("", "a")
    options = DecodeOptions(max_new_tokens=2, no_repeat_ngram_size=2, retry_degenerate=True)
    assert generated(model, 1, options, "a?") == [("a", "retried")]
    assert model.calls[1][1].min_new_tokens == 2


def test_stricter_options_of_the_user_stay() -> None:
    model = Script("no no no no")
    options = DecodeOptions(no_repeat_ngram_size=2, retry_degenerate=True)
    assert generated(model, 1, options, "a?") == [("no no no no", "repetition")]
    assert len(model.calls) == 1  # there are no stricter options


def test_an_answer_that_repeats_the_question_is_an_echo() -> None:
    model = Script("what is it what is it")
    assert generated(model, 1, DecodeOptions(), "what is it?") == [
        ("what is it what is it", "echo")
    ]


def summary(task: Any, model: Any, folder: Path, out: Path) -> Summary:
    found: list[Summary] = []

    def listen(event: object) -> None:
        if isinstance(event, Finished):
            found.append(event.summary)

    options = RunOptions(
        SourceOptions((str(folder),), limit=6),
        loader=LoaderOptions(batch_size=4, workers=0),
        output=OutputOptions(str(out)),
    )
    run(Job(ImageItems(), task, options, load=lambda _: model), listen)
    return found[0]


@pytest.fixture
def flags(tiny: Blip2, batch: LoadedBatch) -> list[object]:
    return [row["flag"] for row in CaptionTask(decode=AGAIN).rows(tiny, batch)]


def test_the_summary_counts_flags(tiny: Blip2, flags: list[object], tmp_path: Path) -> None:
    done = summary(CaptionTask(decode=AGAIN), tiny, SAMPLES, tmp_path / "out.jsonl")
    assert done.flagged == sum(flag != "" for flag in flags) > 0
    assert done.retried == flags.count("retried") > 0
    rows = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text().splitlines()]
    assert [row["flag"] for row in rows] == flags
    once = summary(
        AskTask(from_texts(["how many cats are there?"])), tiny, SAMPLES, tmp_path / "q.jsonl"
    )
    assert (once.flagged, once.retried) == (0, 0)
