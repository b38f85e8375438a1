"""Multi-turn questions: ``{answer}`` and ``{history}`` filled in from earlier turns.

``{answer}`` in a question stands for the answer before it, ``{history}`` for all turns so far, in
the form of the conversations shown with BLIP-2: "Question: … Answer: …. Question: … Answer: …."
(LAVIS, examples/blip2_instructed_generation.ipynb). At the beginning of a question ``{history}``
goes in front of the whole prompt, template and all; a template may place it elsewhere.

Questions are decoded in rounds. One that needs no earlier answer joins the round of the question
before it, so that batches are as large as possible.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from blip2cli.errors import OptionError, option
from blip2cli.model.tokenizer.fill_prompt import fill_in, marks_in
from blip2cli.tasks.questions import Question

ANSWER, HISTORY = "{answer}", "{history}"
_PLACEHOLDERS = re.compile(r"\{(answer|history)\}")

Turn = tuple[str, str]  # a question with its placeholders filled in, and its answer


@dataclass(frozen=True)
class FilledQuestion:
    """A question with its placeholders filled in."""

    text: str  # as rows show it
    history: str  # goes before the whole prompt; empty: nothing


def render_history(turns: Sequence[Turn]) -> str:
    """``turns`` as the model reads them."""
    return " ".join(
        f"Question: {question} Answer: {answer}{'' if answer.endswith(('.', '!', '?')) else '.'}"
        for question, answer in turns
    )


def assign_rounds(questions: Sequence[Question], all_depend: bool = False) -> list[int]:
    """The number of the round, from 0, in which each question is decoded.

    A question with a placeholder comes after all before it; with ``all_depend`` every one does.
    """
    rounds: list[int] = []
    for question in questions:
        depends = all_depend or (
            _PLACEHOLDERS.search(question.text) is not None and bool(placeholders(question))
        )
        rounds.append(rounds[-1] + depends if rounds else 0)
    return rounds


def check_chain(questions: Sequence[Question], field: str, file_name: str = "") -> None:
    """Raise OptionError, blaming the option ``field``, when the first turns cannot be filled in.

    ``file_name`` is the image the questions are about; empty: every image.
    """
    origin = f"{option(field)} {file_name}: " if file_name else f"{option(field)} "
    if questions and "answer" in placeholders(questions[0]):
        raise OptionError(
            field,
            f"{origin}{questions[0].text!r} holds {ANSWER}, but nothing is answered before it",
            "put the question it refers to in front",
        )
    for question in questions:
        if HISTORY in question.text and not question.text.replace(HISTORY, "").strip():
            raise OptionError(
                field,
                f"{origin}{question.text!r} asks nothing beside {HISTORY}",
                "write a question after it",
            )


def placeholders(question: Question) -> set[str]:
    """Which of ``answer`` and ``history`` stand in a question as placeholders."""
    found = _PLACEHOLDERS.findall(question.text)
    if not found or question.literal:
        return set(found)
    return set(found) & set(marks_in(question.text))


def fill_placeholders(
    question: str,
    turns: Sequence[Turn],
    skip: int = 0,
    columns: Mapping[str, str] | None = None,
    literal: bool = False,
) -> FilledQuestion:
    """``question`` with its placeholders replaced by ``turns``, and by the values of ``columns``.

    The first ``skip`` turns are left out of the history. In a ``literal`` question all other
    braces stay.
    """
    leads = question.startswith(HISTORY)
    text = question.removeprefix(HISTORY).lstrip() if leads else question
    values = {"answer": turns[-1][1] if turns else "", "history": render_history(turns[skip:])}
    # In one pass: an answer may happen to hold a placeholder.
    if literal:
        filled = _PLACEHOLDERS.sub(lambda found: values[found[1]], text)
    else:
        filled = fill_in(text, {**(columns or {}), **values})
    return FilledQuestion(filled.strip(), values["history"] if leads else "")
