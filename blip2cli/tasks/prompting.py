"""Prompts of questions: template, history and choices.

A language model reads the question in its template, and choices are possible continuations. A
retrieval model reads one text for every choice, to compare with the image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import TYPE_CHECKING

from blip2cli.errors import OptionError, option
from blip2cli.model.families import RETRIEVAL
from blip2cli.model.limits import check_writes
from blip2cli.model.tokenizer.fill_prompt import Prompt, fill_in, marks_in, question_prompt
from blip2cli.options import AskOptions
from blip2cli.tasks.chains import HISTORY, Turn, fill_placeholders, render_history
from blip2cli.tasks.choices import CHOICE
from blip2cli.tasks.questions import Question

if TYPE_CHECKING:
    from blip2cli.model.wrapper import Blip2

QUESTION = "{question}"


@dataclass(frozen=True)
class PreparedQuestion:
    """A question about one image, ready for the model."""

    prompt: Prompt
    text: str  # as rows show it, placeholders filled in
    choices: tuple[str, ...] = ()
    choice_texts: tuple[str, ...] = ()  # of a retrieval model: the text of each choice


def prepare_question(
    model: Blip2,
    template: str,
    question: Question,
    image: int,
    file_name: str,
    turns: Sequence[Turn],
    new_tokens: int,
    columns: Mapping[str, str],
) -> PreparedQuestion:
    """``question`` about the image in row ``image`` of the features, after ``turns``.

    ``columns`` are values of the source that question and template may hold, by name.
    Turns that exceed the model's positions, beside the question and the answer (its longest
    choice, or ``new_tokens``), are left out of the history, oldest first.
    """
    # The id is part of the name that seeds sampling: questions about one image draw independently.
    name = f"{file_name}\x00{question.question_id}"
    choices = question.choices
    for skip in range(len(turns) + 1):
        filled = fill_placeholders(question.text, turns, skip, columns, question.literal)
        history = render_history(turns[skip:]) if HISTORY in template else filled.history
        if not model.writes:
            texts = tuple(
                _choice_text(template, filled.text, each, history, columns) for each in choices
            )
            return PreparedQuestion(Prompt(image, None, name), filled.text, choices, texts)
        text = question_prompt(template, filled.text, model.family, history, columns)
        if skip == len(turns) or (skip == 0 and not history and HISTORY not in question.text):
            break  # there is no history to shorten
        if choices:
            new_tokens = max(map(len, model.encode_choices(choices)))
        if model.fits(text, new_tokens):
            break
    return PreparedQuestion(Prompt(image, text, name), filled.text, choices)


def _choice_text(
    template: str, question: str, choice: str, history: str, columns: Mapping[str, str]
) -> str:
    """The text of ``choice`` that a retrieval model compares with the image."""
    if template == "auto":
        return " ".join(filter(None, (history, question, choice)))
    marks = {"question": question, "choice": choice, "history": history}
    text = fill_in(template, {**columns, **marks}).strip()
    return text if HISTORY in template else " ".join(filter(None, (history, text)))


def check_choices(
    model: Blip2,
    template: str,
    choices: Sequence[str],
    columns: Mapping[str, str] = MappingProxyType({}),
) -> None:
    """Raise OptionError when the model's tokenizer cannot tell two choices apart.

    A retrieval model reads them in their template; the question beside them tells none apart.
    """
    if model.writes:
        model.encode_choices(choices)
        return
    from blip2cli.model.tokenizer.text import check_distinct

    texts = (_choice_text(template, "", choice, "", columns) for choice in ("", *choices))
    empty, *ids = map(model.codec.encode, texts)
    check_distinct(choices, ids, empty)


def check_template(template: str, closed: bool) -> None:
    """Raise OptionError for a template that no model takes; ``closed``: there are choices."""
    marks = marks_in(template)
    if template == "auto" or "question" in marks or (closed and "choice" in marks):
        return
    raise _template_error(
        f"{template!r} does not hold {QUESTION}, which marks the question's place"
    )


def check_generative(model: str, options: AskOptions, has_questions: bool) -> None:
    """Raise OptionError when these options do not suit a model with a language model."""
    if not has_questions:
        raise OptionError(
            "question",
            f"{model} chooses an answer to a question",
            f"give one with {option('question')}, or take a retrieval model such as "
            "Salesforce/blip2-itm-vit-g to compare images with the choices alone",
        )
    if CHOICE in options.template:
        raise _template_error(
            f"{options.template!r}: {CHOICE} is for retrieval models",
            f"{model} reads the question, at {QUESTION}, and its choices are what may follow",
        )
    if options.match:
        raise OptionError(
            "match",
            f"{option('match')} asks the matching head of a retrieval model, which {model} lacks",
            "leave it out, or take Salesforce/blip2-itm-vit-g",
        )


def check_retrieval(model: str, options: AskOptions, has_questions: bool, has_open: bool) -> None:
    """Raise OptionError when these options do not suit a retrieval model.

    ``has_open``: some question has no choices, so that its answer would have to be generated.
    """
    if has_open:
        check_writes(model, RETRIEVAL, f"give it answers to choose from with {option('choices')}")
    norm = options.choice_norm not in (None, "sum")
    if norm or options.choice_scores:
        name = "choice_norm" if norm else "choice_scores"
        raise OptionError(
            name,
            f"{option(name)} is about the tokens of a model that writes, and {model} is a "
            "retrieval model",
            "leave it out",
        )
    template = options.template
    if template == "auto":
        return
    if CHOICE not in template:
        raise _template_error(
            f"{template!r} does not hold {CHOICE}: {model} is a retrieval model, which compares "
            "the image with a text for each choice"
        )
    if has_questions and QUESTION not in template:
        raise _template_error(
            f"{template!r} does not hold {QUESTION}, the question's place",
            "put it in, or leave out the question",
        )
    if not has_questions and QUESTION in template:
        raise _template_error(
            f"{template!r} has a place for a question",
            f"give one with {option('question')}, or leave the place out",
        )


def _template_error(problem: str, remedy: str = "") -> OptionError:
    return OptionError("template", f"{option('template')} {problem}", remedy)
