"""Answers: VQA accuracy equals the official one; exact and normalized match; yes and no.

The golden values were written by ``benchmarks/answer_metrics.py``, which runs ``vqaEval.py``.
"""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from benchmarks.answer_grammar import pairs
from benchmarks.answer_metrics import RULES, digest_of
from blip2cli.evaluate.answer_match import exact, normalize, normalized
from blip2cli.evaluate.vqa_accuracy import process_answer, vqa_score, vqa_score_2017
from blip2cli.evaluate.yes_no import majority, says

GOLDEN = json.loads((Path(__file__).parent / "golden" / "answers.json").read_text("utf-8"))


@pytest.mark.parametrize("rules", list(RULES))
def test_scores_are_the_official_ones(rules: str) -> None:
    golden, score = GOLDEN[rules], RULES[rules]
    for answer, people, value in golden["sample"]:
        assert score(answer, people) == pytest.approx(value, abs=1e-6)
    found = [score(answer, people) for answer, people in pairs(golden["pairs"])]
    assert len(found) == 50_000
    assert digest_of(found) == golden["digest"]


@pytest.mark.parametrize(
    ("text", "processed"),
    [
        ("The cat!", "cat"),
        ("two dont", "2 don't"),
        ("None", "0"),
        ("1,000", "1000"),
        ("left/right", "left right"),
        ("3. 4.5", "3 4.5"),
        ("." * 40, "." * 8),
        ("somebody'd", "somebodyd"),
    ],
)
def test_the_rules_and_slips_of_the_original(text: str, processed: str) -> None:
    assert process_answer(text) == processed


def test_three_of_ten_are_nearly_enough() -> None:
    people = ["red"] * 3 + ["blue"] * 7
    assert vqa_score("red", people) == pytest.approx(0.9)  # 7 sets with three, 3 with two
    assert vqa_score("Blue.", people) == 1.0
    assert vqa_score("green", people) == 0.0


def test_where_people_agree_nothing_is_processed_since_2021() -> None:
    assert vqa_score("Yes.", ["yes"] * 10) == 0.0
    assert vqa_score_2017("Yes.", ["yes"] * 10) == 1.0
    assert vqa_score("none", ["none"] * 7 + ["no"] * 3) == 1.0
    assert vqa_score_2017("none", ["none"] * 7 + ["no"] * 3) == 0.0


def test_exact_and_normalized() -> None:
    assert exact(" cat ", ["cat", "dog"])
    assert not exact("The cat.", ["cat"])
    assert normalized("The cat.", ["a CAT"])
    assert not normalized("cats", ["cat"])
    assert normalize("It's  an  up-to-date U.S. «map»") == "its uptodate us map"


def test_yes_and_no() -> None:
    assert [says(text) for text in ("Yes.", " no, it is", "yesterday", "maybe", "")] == [
        "yes", "no", None, None, None,
    ]  # fmt: skip
    assert majority(["no", "yes", "Yes"]) == "yes"
