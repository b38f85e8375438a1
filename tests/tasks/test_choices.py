"""Choices: parsing, checks, and probabilities."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from hypothesis import given as examples
from hypothesis import strategies as st

from blip2cli.errors import OptionError
from blip2cli.options import AskOptions, DecodeOptions
from blip2cli.tasks.ask import AskTask
from blip2cli.tasks.choices import (
    choice_mass,
    from_cell,
    from_file,
    from_list,
    from_text,
    probabilities,
)
from blip2cli.tasks.questions import Question, Questions, from_texts
from blip2cli.tasks.questions import from_file as questions_from_file

QUESTIONS = from_texts(["is it red?"])


def test_commas_separate_choices_on_the_command_line() -> None:
    assert from_text(" yes, no ,a red one") == ("yes", "no", "a red one")


def test_a_file_holds_one_choice_a_line(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes("\ufeffred, or so\r\n\r\n  blue\n".encode())
    assert from_file(str(path)) == ("red, or so", "blue")


@pytest.mark.parametrize(
    ("cell", "choices"),
    [
        (["yes", "no"], ("yes", "no")),
        ([1, 2, 3.5], ("1", "2", "3.5")),
        ("yes | no", ("yes", "no")),
        ('["a|b", "c"]', ("a|b", "c")),
        ("", ()),
        (None, ()),
    ],
)
def test_a_cell_is_a_list_json_or_text_with_bars(cell: object, choices: tuple[str, ...]) -> None:
    assert from_cell(cell, "questions", "x:") == choices


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: from_text("yes"), "choices 'yes' leaves nothing to choose"),
        (lambda: from_text("yes,,no"), "holds an empty choice"),
        (lambda: from_text("yes,no, yes"), "holds 'yes' twice"),
        (lambda: from_list([]), "leaves nothing to choose"),
        (
            lambda: from_cell("a|a", "questions", "q.csv, line 2:"),
            "q.csv, line 2: choices holds 'a' twice",
        ),
        (lambda: from_cell(["a"], "questions", "x:"), "leaves nothing to choose"),
        (lambda: from_cell("[1, 2", "questions", "x:"), "no JSON list"),
        (lambda: from_cell({"a": 1}, "questions", "x:"), "neither a list nor a text"),
        (lambda: from_cell(["a", True], "questions", "x:"), "holds true"),
        (lambda: from_file("none.txt"), "there is no such file"),
    ],
)
def test_malformed_choices_are_refused(make: object, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        make()  # type: ignore[operator]
    assert message in str(caught.value)
    assert str(caught.value).endswith(".")


def test_a_file_of_another_encoding_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "c.txt"
    path.write_bytes(b"caf\xe9\ntea\n")
    with pytest.raises(OptionError, match="is not UTF-8"):
        from_file(str(path))


def test_questions_of_a_table_have_choices_of_their_own(tmp_path: Path) -> None:
    table = tmp_path / "q.csv"
    table.write_text("file_name,question,choices\na.png,red?,yes|no\na.png,what?,\n")
    lines = tmp_path / "q.jsonl"
    rows = [
        {"file_name": "a.png", "question": "red?", "choices": ["yes", "no"]},
        {"file_name": "a.png", "question": "what?"},
    ]
    lines.write_text("\n".join(map(json.dumps, rows)))
    expected = (Question("red?", "1", ("yes", "no")), Question("what?", "2"))
    for path in (table, lines):
        assert questions_from_file(str(path)).of("a.png") == expected
    table.write_text("file_name,question,choices\na.png,red?,yes\n")
    with pytest.raises(OptionError, match=r"q\.csv, line 2: choices leaves nothing to choose"):
        questions_from_file(str(table))


@examples(st.lists(st.floats(-1e4, 0), min_size=2, max_size=300))
def test_probabilities_are_those_of_a_softmax_and_sum_to_one(scores: list[float]) -> None:
    found = probabilities(scores)
    assert math.fsum(found) == pytest.approx(1, abs=1e-7)
    assert sum(found) == pytest.approx(1, abs=1e-6)
    most = max(scores)
    total = math.fsum(math.exp(score - most) for score in scores)
    for score, share in zip(scores, found, strict=True):
        assert share == pytest.approx(math.exp(score - most) / total, rel=1e-6)


def test_the_mass_of_choices_is_the_sum_of_their_probabilities() -> None:
    assert choice_mass([math.log(0.25), math.log(0.5)]) == 0.75
    assert choice_mass([-1000.0, -2000.0]) == 0
    assert choice_mass([0.0, 1e-7]) == 1  # of float32: their sum may be a little more than 1


@pytest.mark.parametrize(
    ("options", "name"),
    [
        (DecodeOptions(num_beams=3), "num_beams"),
        (DecodeOptions(temperature=0.5), "temperature"),
        (DecodeOptions(top_k=3), "top_k"),
        (DecodeOptions(max_new_tokens=5), "max_new_tokens"),
        (DecodeOptions(seed=1), "seed"),
        (DecodeOptions(retry_degenerate=True), "retry_degenerate"),
    ],
)
def test_decoding_options_do_not_go_with_choices_only(options: DecodeOptions, name: str) -> None:
    with pytest.raises(OptionError, match=rf"^{name} is about texts that are written"):
        AskTask(QUESTIONS, decode=options, choices=("yes", "no"))
    # An open question among the others is decoded, so they act there.
    mixed = Questions((Question("a?", "1", ("yes", "no")), Question("b?", "2")))
    assert AskTask(mixed, decode=options).decode == options


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: AskTask(QUESTIONS, AskOptions(choice_norm="mean")),
            "choice_norm is about answers to choose from",
        ),
        (
            lambda: AskTask(QUESTIONS, AskOptions(choice_scores=True)),
            "choice_scores is about answers to choose from",
        ),
        (
            lambda: AskTask(QUESTIONS, AskOptions(match=True)),
            "match is about answers to choose from",
        ),
        (lambda: AskTask(QUESTIONS, AskOptions(template="{choice}")), "does not hold {question}"),
        (
            lambda: AskTask(QUESTIONS, AskOptions(choice_norm="most"), choices=("a", "b")),
            "choice_norm has no value 'most'; choose sum, mean, pmi or prior",
        ),
        (lambda: AskTask(from_texts([])), "Nothing is asked"),
    ],
)
def test_options_of_choices_are_refused_without_choices(make: object, message: str) -> None:
    with pytest.raises(OptionError) as caught:
        make()  # type: ignore[operator]
    assert message in str(caught.value)


def test_choices_are_part_of_the_settings() -> None:
    task = AskTask(QUESTIONS, choices=("yes", "no"))
    assert json.loads(json.dumps(task.settings)) == task.settings
    assert task.settings["choices"] == ["yes", "no"]
    assert task.settings["choice_norm"] == "sum"
    assert task.settings["choice_mass"] is True
    assert task.settings["choice_scores"] is None
    assert AskTask(QUESTIONS).settings["choices"] is None
    assert "choice_mass" not in AskTask(QUESTIONS).settings
