from __future__ import annotations

import pytest

from blip2cli.errors import OptionError
from blip2cli.model.families import OPT, T5
from blip2cli.model.tokenizer.fill_prompt import fill_in, has_lone_brace, marks_in, question_prompt


def test_auto_is_the_papers_template() -> None:
    question = "how many cats are there?"
    assert question_prompt("auto", question, OPT) == f"Question: {question} Answer:"
    assert question_prompt("auto", question, T5) == f"Question: {question} Short answer:"


def test_own_template_may_hold_other_braces() -> None:
    assert question_prompt("{x} {question} {", "why?", OPT) == "{x} why? {"


def test_braces_in_the_question_stay() -> None:
    assert question_prompt("Q: {question}", "{question} {0}", OPT) == "Q: {question} {0}"


def test_template_without_the_question_is_refused() -> None:
    with pytest.raises(OptionError, match=r"\{question\}"):
        question_prompt("Question:", "why?", OPT)


def test_doubled_braces_are_braces() -> None:
    values = {"a": "{b}", "b": "}}"}
    assert fill_in("{{a}} {a} {{{a}}} {c} {} {b}} }", values) == "{a} {b} {{b}} {c} {} }}} }"
    assert marks_in("{{a}} {a} {{{b c}}} {") == ["a", "b c"]


@pytest.mark.parametrize(
    ("text", "lone"),
    [("{a} {{ }} }", False), ("{{{a}}}", False), ("{a", True), ("{}", True), ("{{} {", True)],
)
def test_a_brace_that_names_nothing_is_seen(text: str, lone: bool) -> None:
    assert has_lone_brace(text) == lone
