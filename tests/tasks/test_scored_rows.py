"""Texts of rows that exist already are scored by a retrieval model."""

from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest

from blip2cli.errors import OptionError
from blip2cli.model.checkpoint.ranker import RankerSpec
from blip2cli.model.load_ranked import load_ranked
from blip2cli.model.retrieval import Pair
from blip2cli.model.wrapper import Blip2
from blip2cli.options import AskOptions, DecodeOptions, ModelOptions, RankOptions
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.caption import CaptionTask
from blip2cli.tasks.questions import from_file, from_options
from tests.tasks.helpers import load

SEVERAL = DecodeOptions(num_beams=3, num_captions=3)


@pytest.fixture(scope="module")
def itm() -> Blip2:
    return Blip2.load(ModelOptions("tiny-itm", device="cpu"))


@pytest.fixture(scope="module")
def ranked(images: Path) -> list[dict[str, Any]]:
    """Captions that were ranked as they were written."""
    tiny = load_ranked(ModelOptions("tiny", device="cpu"), None, RankerSpec("tiny-itm"))
    task = CaptionTask(decode=SEVERAL, rank=RankOptions("tiny-itm"))
    return task.rows(tiny, load(images, tiny))


def table(path: Path, rows: list[dict[str, Any]]) -> Path:
    """JSON Lines, or a table whose lists are JSON."""
    with path.open("w", newline="") as file:
        if path.suffix == ".jsonl":
            file.writelines(json.dumps(row) + "\n" for row in rows)
        else:
            writer = csv.DictWriter(file, list(rows[0]))
            writer.writeheader()
            for row in rows:
                writer.writerow(
                    {k: json.dumps(v) if isinstance(v, list) else v for k, v in row.items()}
                )
    return path


def task(path: Path, column: str, match: bool = True, **more: Any) -> AskTask:
    options = AskOptions(questions=str(path), choices_column=column, match=match, **more)
    return AskTask(from_options(options), options)


@pytest.mark.parametrize("suffix", ["jsonl", "csv"])
def test_scores_are_those_of_the_run_that_ranked(
    ranked: list[dict[str, Any]], itm: Blip2, images: Path, tmp_path: Path, suffix: str
) -> None:
    path = table(tmp_path / f"rows.{suffix}", ranked)
    batch = load(images, itm)
    scored: list[dict[str, Any]] = task(path, "candidates").fit(itm).rows(itm, batch)
    for row, before in zip(scored, ranked, strict=True):
        assert row["answer"] == before["caption"]
        assert math.exp(row["logprob"]) == pytest.approx(before["match"], abs=1e-5)
        texts = dict.fromkeys(each["text"] for each in before["candidates"])
        assert [each["choice"] for each in row["probabilities"]] == list(texts)
    single: list[dict[str, Any]] = task(path, "caption").fit(itm).rows(itm, batch)
    for row, before in zip(single, ranked, strict=True):
        assert (row["answer"], row["question"]) == (before["caption"], "")
        assert math.exp(row["logprob"]) == pytest.approx(before["match"], abs=1e-5)


def test_questions_and_templates_are_part_of_the_text(
    itm: Blip2, images: Path, tmp_path: Path
) -> None:
    batch = load(images, itm)
    name = batch.items[0].file_name
    rows = [
        {"file_name": name, "question": "what?", "question_id": 7, "answer": "a | tree"},
        {"file_name": name, "answer": ["a cat", "a cat", "[a dog"]},
    ]
    path = table(tmp_path / "answers.jsonl", rows)
    first, second = task(path, "answer").fit(itm).rows(itm, batch)
    assert (first["question"], first["question_id"]) == ("what?", "7")
    assert itm.retrieval is not None
    features = itm.features(batch.pixels)
    logits = itm.retrieval.matching_logits(features, [Pair(0, "what? a | tree")])
    assert first["logprob"] == pytest.approx(logits.log_softmax(1)[0, 1].item(), abs=1e-5)
    assert [each["choice"] for each in second["probabilities"]] == ["a cat", "[a dog"]  # type: ignore[attr-defined]
    other = task(path, "answer", template="a photo of {choice}. {question}").fit(itm)
    assert other.rows(itm, batch)[0]["logprob"] != first["logprob"]


@pytest.mark.parametrize(
    ("rows", "column", "message"),
    [
        ([{"file_name": "a", "caption": None}], "caption", "line 1: caption is missing or empty"),
        ([{"file_name": "a", "caption": [" "]}], "caption", "caption is missing or empty"),
        ([{"file_name": "a", "caption": 3}], "caption", "caption is no text"),
        ([{"file_name": "a", "caption": []}], "caption", "caption is empty"),
        ([{"file_name": "a", "caption": "b"}], "texts", "texts is missing or empty"),
    ],
)
def test_a_row_without_a_text_is_named(
    rows: list[dict[str, Any]], column: str, message: str, tmp_path: Path
) -> None:
    with pytest.raises(OptionError, match=message):
        task(table(tmp_path / "rows.jsonl", rows), column)


def test_what_makes_no_sense_is_one_sentence(itm: Blip2, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="choices and choices_column exclude each other"):
        AskOptions(choices="a,b", choices_column="caption")
    (tmp_path / "list.txt").write_text("what?\n")
    with pytest.raises(OptionError, match="is no table: there is no column 'caption'"):
        from_file(str(tmp_path / "list.txt"), "caption")
    path = table(tmp_path / "rows.csv", [{"file_name": "a", "caption": "b"}])
    with pytest.raises(OptionError, match="there is no column 'guess'"):
        task(path, "guess")
    with pytest.raises(OptionError, match="leaves nothing to compare; add match"):
        task(path, "caption", match=False).fit(itm)


def test_a_model_that_writes_needs_the_question(model: Blip2, images: Path, tmp_path: Path) -> None:
    batch = load(images, model)
    name = batch.items[0].file_name
    path = table(tmp_path / "a.jsonl", [{"file_name": name, "question": "is it?", "answer": "no"}])
    (row,) = task(path, "answer", match=False).fit(model).rows(model, batch)
    assert row["answer"] == "no"
    path = table(tmp_path / "b.jsonl", [{"file_name": name, "answer": "no"}])
    with pytest.raises(OptionError, match="chooses an answer to a question"):
        task(path, "answer", match=False).fit(model)
