"""Conversations: questions that use what was answered before, about the same image.

``{answer}`` in a question stands for the answer before it, ``{history}`` for all turns so far, in
the form of the conversations shown with BLIP-2: "Question: … Answer: …. Question: … Answer: …."
(LAVIS, examples/blip2_instructed_generation.ipynb). At the beginning of a question ``{history}``
goes in front of the whole prompt, template and all; a template may have a place of its own for it.

Questions that need no answer join those before them, so that as many as possible are decoded
together.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from blip2cli.errors import OptionError
from blip2cli.tasks.questions import Question

ANSWER, HISTORY = "{answer}", "{history}"
_MARKS = re.compile(r"\{(answer|history)\}")

Turn = tuple[str, str]  # a question as it was asked, and its answer


@dataclass(frozen=True)
class Asked:
    """A question with the answers before it filled in."""

    question: str  # as rows show it
    history: str  # what goes before the whole prompt; empty: nothing


def told(turns: Sequence[Turn]) -> str:
    """``turns`` as the model reads them."""
    return " ".join(f"Question: {question} Answer: {_ended(answer)}" for question, answer in turns)


def _ended(answer: str) -> str:
    return answer if answer.endswith((".", "!", "?")) else f"{answer}."


def depends(question: str) -> bool:
    """Whether ``question`` needs the answers before it."""
    return _MARKS.search(question) is not None


def stages(questions: Sequence[Question], always: bool = False) -> list[int]:
    """For each question the number of the round in which it is asked, from 0.

    A question that needs answers comes after all before it. ``always``: every one does.
    """
    found: list[int] = []
    for question in questions:
        waits = always or depends(question.text)
        found.append(found[-1] + waits if found else 0)
    return found


def check_chain(questions: Sequence[Question], whose: str) -> None:
    """Raise OptionError when a chain cannot be asked; ``whose`` begins the sentence."""
    if questions and ANSWER in questions[0].text:
        raise OptionError(
            f"{whose}{questions[0].text!r} holds {ANSWER}, but nothing is answered before it; "
            "put the question it refers to in front."
        )
    for question in questions:
        if HISTORY in question.text and not question.text.replace(HISTORY, "").strip():
            raise OptionError(
                f"{whose}{question.text!r} asks nothing beside {HISTORY}; write a question "
                "after it."
            )


def fill(question: str, turns: Sequence[Turn], skip: int = 0) -> Asked:
    """``question`` with its marks replaced by what ``turns`` say.

    The first ``skip`` turns are left out of the history.
    """
    leads = question.startswith(HISTORY)
    text = question.removeprefix(HISTORY).lstrip() if leads else question
    values = {"answer": turns[-1][1] if turns else "", "history": told(turns[skip:])}
    # In one pass: an answer may happen to hold a mark.
    asked = _MARKS.sub(lambda mark: values[mark[1]], text).strip()
    return Asked(asked, values["history"] if leads else "")
