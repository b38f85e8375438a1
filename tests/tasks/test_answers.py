"""Closed questions through the whole pipeline: rows, files, failures, resuming."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.errors import OptionError, OutputError
from blip2cli.images.batch_stream import LoadedBatch
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.model.wrapper import Blip2
from blip2cli.options import (
    AskOptions,
    DecodeOptions,
    LoaderOptions,
    Norm,
    OutputOptions,
    RunOptions,
    SourceOptions,
)
from blip2cli.pipeline.image_items import ImageItems
from blip2cli.pipeline.job import Job
from blip2cli.pipeline.out_of_memory import BatchHalving
from blip2cli.pipeline.run import run
from blip2cli.sinks.base import Column
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.base import Row
from blip2cli.tasks.blank_image import BlankScores
from blip2cli.tasks.choice_norms import normalized_scores
from blip2cli.tasks.choices import probabilities
from blip2cli.tasks.prompting import PreparedQuestion
from blip2cli.tasks.questions import Question, Questions, from_texts
from tests.memory_limited_model import MemoryLimitedModel
from tests.tasks.helpers import load

CHOICES = ("a", "a cat", "a cat and a pizza", "two", "three cats")
CLOSED = AskTask(from_texts(["what is it?", "how many cats?"]), choices=CHOICES)
SCORED = replace(CLOSED, options=AskOptions(choice_norm="pmi", choice_scores=True))


@pytest.fixture
def batch(mixed: Path, model: Blip2) -> LoadedBatch:
    """Five good images and, second, a failure."""
    return load(mixed, model)


@pytest.mark.parametrize("norm", get_args(Norm))
def test_the_answer_is_the_likeliest_choice(norm: Any, model: Blip2, batch: LoadedBatch) -> None:
    task = AskTask(from_texts(["what is it?"]), AskOptions(choice_norm=norm), choices=CHOICES)
    features = model.features(batch.pixels)
    text = "Question: what is it? Answer:"
    found = model.score(features, [Prompt(i, text, "") for i in range(5)], [CHOICES] * 5)
    (blank,) = BlankScores().of(model, [PreparedQuestion(Prompt(0, text, ""), "", CHOICES)])
    for row, likelihoods in zip(task.rows(model, batch), found, strict=True):
        totals = [one.total for one in likelihoods]
        scores = normalized_scores(norm, totals, [one.tokens for one in likelihoods], blank)
        best = scores.index(max(scores))
        assert row["answer"] == CHOICES[best]
        assert row["logprob"] == round(likelihoods[best].mean, 6)
        written = sum(math.exp(one.total) for one in likelihoods)
        assert row["choice_mass"] == pytest.approx(written, rel=1e-7)
        assert row["flag"] == ""
        listed: Any = row["probabilities"]
        assert [one["choice"] for one in listed] == list(CHOICES)
        total = sum(math.exp(score) for score in scores)
        for one, score in zip(listed, scores, strict=True):
            assert one["probability"] == pytest.approx(math.exp(score) / total, rel=1e-5)
        assert sum(one["probability"] for one in listed) == pytest.approx(1, abs=1e-6)


def test_norms_give_different_probabilities(model: Blip2, batch: LoadedBatch) -> None:
    lists = [
        AskTask(from_texts(["what?"]), AskOptions(choice_norm=norm), choices=CHOICES).rows(
            model, batch
        )
        for norm in get_args(Norm)
    ]
    for one, other in combinations(lists, 2):
        assert [row["probabilities"] for row in one] != [row["probabilities"] for row in other]
        assert [row["choice_mass"] for row in one] == [row["choice_mass"] for row in other]


def options(folder: Path, out: Path, batch: int, **output: Any) -> RunOptions:
    return RunOptions(
        SourceOptions((str(folder),)),
        loader=LoaderOptions(batch_size=batch, workers=0),
        output=OutputOptions(str(out), **output),
    )


@pytest.mark.parametrize("task", [CLOSED, SCORED], ids=["plain", "scored"])
def test_rows_are_the_same_at_any_batch_and_in_both_formats(
    task: AskTask, mixed: Path, tmp_path: Path, model: Blip2
) -> None:
    lines = {}
    for size in (1, 2, 16):
        out = tmp_path / f"{size}.jsonl"
        run(
            Job(
                ImageItems(),
                task,
                options(mixed, out, size, errors="inline"),
                load=lambda _: model,
            )
        )
        lines[size] = out.read_text()
    assert lines[1] == lines[2] == lines[16]
    rows = [json.loads(line) for line in lines[1].splitlines()]
    assert [row["question_id"] for row in rows] == ["1", "2"] * 6
    failed = [row for row in rows if row["error"]]
    assert [(row["file_name"], row["question"]) for row in failed] == [
        ("b-broken.jpg", "what is it?"),
        ("b-broken.jpg", "how many cats?"),
    ]
    assert {failed[0][key] for key in ("answer", "logprob", "flag")} == {None}
    assert failed[0]["probabilities"] is failed[0]["choice_mass"] is None
    out = tmp_path / "rows.parquet"
    run(Job(ImageItems(), task, options(mixed, out, 3, errors="inline"), load=lambda _: model))
    table = pq.read_table(out)
    choice = pa.struct([("choice", pa.string()), ("probability", pa.float64())])
    assert table.schema.field("probabilities").type == pa.list_(pa.field("element", choice))
    assert table.schema.field("choice_mass").type == pa.float64()
    if task is SCORED:
        assert failed[0]["choice_scores"] is None
        numbers = [
            ("logprob", pa.float64()),
            ("tokens", pa.int64()),
            ("blank_logprob", pa.float64()),
        ]
        score = pa.struct([("choice", pa.string()), *numbers])
        kind = table.schema.field("choice_scores").type
        assert kind == pa.list_(pa.field("element", score))
    assert table.to_pylist() == rows


def test_other_choices_are_other_settings(mixed: Path, tmp_path: Path, model: Blip2) -> None:
    out = tmp_path / "rows.jsonl"
    run(Job(ImageItems(), CLOSED, options(mixed, out, 2), load=lambda _: model))
    whole = out.read_bytes()
    other = AskTask(CLOSED.questions, choices=CHOICES[:3])
    with pytest.raises(OutputError, match=r"with choices 'a', 'a cat', .*, not 'a', 'a cat'"):
        run(Job(ImageItems(), other, options(mixed, out, 2, resume=True), load=lambda _: model))
    mean = AskTask(CLOSED.questions, AskOptions(choice_norm="mean"), choices=CHOICES)
    with pytest.raises(OutputError, match=r"with choice_norm sum, not mean"):
        run(Job(ImageItems(), mean, options(mixed, out, 2, resume=True), load=lambda _: model))
    scored = replace(CLOSED, options=AskOptions(choice_scores=True))
    with pytest.raises(OutputError, match=r"with choice_scores unset, not True"):
        run(Job(ImageItems(), scored, options(mixed, out, 2, resume=True), load=lambda _: model))
    run(Job(ImageItems(), CLOSED, options(mixed, out, 2, resume=True), load=lambda _: model))
    assert out.read_bytes() == whole


class OlderTask(AskTask):
    """Questions as they were answered before there was a choice mass."""

    @property
    def columns(self) -> tuple[Column, ...]:
        return super().columns[:-1]

    @property
    def settings(self) -> dict[str, object]:
        return {k: v for k, v in super().settings.items() if k != "choice_mass"}

    def rows(self, model: Blip2, batch: LoadedBatch) -> list[Row]:
        rows = super().rows(model, batch)
        return [{k: v for k, v in row.items() if k != "choice_mass"} for row in rows]


@pytest.mark.parametrize("name", ["rows.jsonl", "rows.parquet"])
def test_rows_from_before_there_was_a_choice_mass_are_not_gone_on_with(
    name: str, mixed: Path, tmp_path: Path, model: Blip2
) -> None:
    out = tmp_path / name
    older = OlderTask(CLOSED.questions, choices=CHOICES)
    run(Job(ImageItems(), older, options(mixed, out, 3), load=lambda _: model))
    whole = out.read_bytes()
    again = options(mixed, out, 3, resume=True)
    with pytest.raises(OutputError, match="before rows had the column choice_mass; choose another"):
        run(Job(ImageItems(), CLOSED, again, load=lambda _: model))
    assert out.read_bytes() == whole


def test_open_and_closed_questions_may_be_mixed(model: Blip2, batch: LoadedBatch) -> None:
    short = DecodeOptions(max_new_tokens=4)
    mixed = Questions(
        (Question("what?", "1"), Question("red?", "2", ("yes", "no")), Question("why?", "3"))
    )
    rows = AskTask(mixed, decode=short).rows(model, batch)
    for name in ("probabilities", "choice_mass"):
        assert [row[name] is None for row in rows] == [True, False, True] * 5
    open_only = AskTask(from_texts(["what?"]), decode=short).rows(model, batch)
    assert not {"probabilities", "choice_mass"} & open_only[0].keys()
    assert [row["answer"] for row in rows[::3]] == [row["answer"] for row in open_only]
    assert {row["answer"] for row in rows[1::3]} <= {"yes", "no"}


def test_a_batch_that_is_too_large_is_halved(model: Blip2, batch: LoadedBatch) -> None:
    halving = BatchHalving(CLOSED)
    limited: Any = MemoryLimitedModel(model, 2)
    rows = halving.process(limited, batch).rows
    assert halving.size == 2
    assert rows == CLOSED.rows(model, batch)


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (AskTask(from_texts([]), choices=("a", "b")), "give one with question"),
        (
            AskTask(
                from_texts(["a?"]), AskOptions(template="{question} {choice}"), choices=("a", "b")
            ),
            "is for retrieval",
        ),
        (AskTask(from_texts(["a?"]), AskOptions(match=True), choices=("a", "b")), "matching head"),
    ],
)
def test_a_generative_model_refuses_unfit_options_before_and_after_loading(
    task: AskTask, message: str, checkpoint: Path, model: Blip2
) -> None:
    for attempt in (lambda: task.check(str(checkpoint), model.family), lambda: task.fit(model)):
        with pytest.raises(OptionError) as caught:
            attempt()
        assert message in str(caught.value)


def test_choices_without_a_token_are_refused_before_the_first_row(model: Blip2) -> None:
    class Tokenizer:
        def __call__(self, text: str, **_: object) -> dict[str, list[int]]:
            return {"input_ids": [5] if text and "nothing" not in text else []}

    import copy
    import dataclasses

    other = copy.copy(model)
    other.codec = dataclasses.replace(model.codec, tokenizer=Tokenizer())
    with pytest.raises(OptionError, match="no token for the choice 'nothing'"):
        AskTask(from_texts(["a?"]), choices=("nothing", "x")).fit(other)
    with pytest.raises(OptionError, match="cannot tell the choices 'x' and 'y' apart"):
        AskTask(from_texts(["a?"]), choices=("x", "y")).fit(other)


def test_scores_of_choices_make_the_probabilities_of_every_norm(
    model: Blip2, batch: LoadedBatch
) -> None:
    rows = SCORED.rows(model, batch)
    for norm in get_args(Norm):
        expected = AskTask(CLOSED.questions, AskOptions(choice_norm=norm), choices=CHOICES)
        for row, other in zip(rows, expected.rows(model, batch), strict=True):
            scores: Any = row["choice_scores"]
            logprobs, tokens, blank = (
                [one[name] for one in scores] for name in ("logprob", "tokens", "blank_logprob")
            )
            found = probabilities(normalized_scores(norm, logprobs, tokens, blank))
            shares: Any = other["probabilities"]
            assert found == pytest.approx([one["probability"] for one in shares], rel=1e-5)
            assert row["choice_mass"] == other["choice_mass"]


def test_each_turn_of_a_conversation_has_a_blank_image_of_its_own(
    model: Blip2, batch: LoadedBatch
) -> None:
    chain = Questions(
        (
            Question("what is it?", "1", CHOICES),
            Question("{history} is there {answer}?", "2", ("yes", "no")),
        )
    )
    rows = AskTask(chain, SCORED.options).rows(model, batch)
    for first, second in zip(rows[::2], rows[1::2], strict=True):
        asked = f"is there {first['answer']}?"
        assert second["question"] == asked
        text = f"Question: what is it? Answer: {first['answer']}. Question: {asked} Answer:"
        question = PreparedQuestion(Prompt(0, text, ""), "", ("yes", "no"))
        (blank,) = BlankScores().of(model, [question])
        scores: Any = second["choice_scores"]
        assert [one["blank_logprob"] for one in scores] == [round(one, 6) for one in blank]
