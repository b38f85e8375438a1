"""How a question is put to a model: the template, what was said before, and the choices.

A model that writes reads the question, in its template; choices are what may follow. A retrieval
model writes nothing: it reads a text for every choice, to compare with the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blip2cli.errors import OptionError
from blip2cli.model.limits import check_writes
from blip2cli.model.tokenizer.prompts import Prompt, fill_in, question_prompt
from blip2cli.options import Norm
from blip2cli.tasks.chains import HISTORY, Turn, fill, told
from blip2cli.tasks.choices import CHOICE

if TYPE_CHECKING:
    from blip2cli.model.wrapper import Blip2

QUESTION = "{question}"


@dataclass(frozen=True)
class Wanted:
    """A question to an image, ready for the model."""

    prompt: Prompt
    question: str  # as rows show it, with the answers before it filled in
    choices: tuple[str, ...] = ()
    texts: tuple[str, ...] = ()  # for a retrieval model: what each choice says about the image


def word(
    model: Blip2,
    template: str,
    image: int,
    name: str,
    question: str,
    choices: tuple[str, ...],
    turns: Sequence[Turn],
    new_tokens: int,
) -> Wanted:
    """``question`` to the image in row ``image`` of the features, after ``turns``.

    Turns that do not fit into the model beside the question and the answer (its longest choice, or
    ``new_tokens``) are left out of the history, oldest first.
    """
    for skip in range(len(turns) + 1):
        asked = fill(question, turns, skip)
        history = told(turns[skip:]) if HISTORY in template else asked.history
        if model.family == "itm":
            texts = tuple(_claim(template, asked.question, choice, history) for choice in choices)
            return Wanted(Prompt(image, None, name), asked.question, choices, texts)
        text = question_prompt(template, asked.question, model.family, history)
        if skip == len(turns) or (skip == 0 and not history and HISTORY not in question):
            break  # there is nothing to leave out
        if choices:
            new_tokens = max(map(len, model.encode_choices(choices)))
        if model.fits(text, new_tokens):
            break
    return Wanted(Prompt(image, text, name), asked.question, choices)


def _claim(template: str, question: str, choice: str, history: str) -> str:
    """What ``choice`` says about an image."""
    if template == "auto":
        return " ".join(filter(None, (history, question, choice)))
    text = fill_in(template, question=question, choice=choice, history=history).strip()
    return text if HISTORY in template else " ".join(filter(None, (history, text)))


def check_template(template: str, closed: bool) -> None:
    """Raise OptionError when no model could be asked with ``template``."""
    if template == "auto" or QUESTION in template or (closed and CHOICE in template):
        return
    raise OptionError(
        f"--template {template!r} does not hold {QUESTION}, which marks the question's place."
    )


def check_reads(model: str, template: str, asks: bool, match: bool) -> None:
    """Raise OptionError when a model that writes cannot be asked so."""
    if not asks:
        raise OptionError(
            f"{model} chooses an answer to a question; give one with -q, or take a retrieval model "
            "such as Salesforce/blip2-itm-vit-g to compare images with the choices alone."
        )
    if CHOICE in template:
        raise OptionError(
            f"--template {template!r}: {CHOICE} is for retrieval models; {model} reads the "
            f"question, at {QUESTION}, and its choices are what may follow."
        )
    if match:
        raise OptionError(
            f"--match asks the matching head of a retrieval model, which {model} lacks; leave it "
            "out, or take Salesforce/blip2-itm-vit-g."
        )


def check_compares(model: str, template: str, asks: bool, writes: bool, norm: Norm) -> None:
    """Raise OptionError when a retrieval model cannot be asked so.

    ``writes``: some question has no choices, so that its answer would have to be written.
    """
    if writes:
        check_writes(model, "itm", "give it answers to choose from with --choices")
    if norm != "sum":
        raise OptionError(
            f"--choice-norm is about the tokens of a model that writes, and {model} is a retrieval "
            "model; leave it out."
        )
    if template == "auto":
        return
    if CHOICE not in template:
        raise OptionError(
            f"--template {template!r} does not hold {CHOICE}: {model} is a retrieval model, which "
            "compares the image with a text for each choice."
        )
    if asks and QUESTION not in template:
        raise OptionError(
            f"--template {template!r} does not hold {QUESTION}, the question's place; put it "
            "in, or leave out the question."
        )
    if not asks and QUESTION in template:
        raise OptionError(
            f"--template {template!r} has a place for a question; give one with -q, or leave "
            "the place out."
        )
