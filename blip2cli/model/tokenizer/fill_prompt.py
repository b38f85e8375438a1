"""Prompts: a question filled into its template (``families/*/family.py`` has each family's own)."""

from __future__ import annotations

import re
from dataclasses import dataclass

from blip2cli.errors import OptionError, option
from blip2cli.model.families import Family


@dataclass(frozen=True)
class Prompt:
    """One text to be generated about one image."""

    image: int  # row in the features
    text: str | None  # None: a caption without prompt
    name: str  # the image's name (and question id): sampling draws from a seed of it
    max_new_tokens: int | None = None  # a limit of this text's own, below the options'


def question_prompt(template: str, question: str, family: Family, history: str = "") -> str:
    """The prompt for ``question``.

    ``template`` is ``auto`` (the paper's for this language model) or any text that holds
    ``{question}``. ``history``, the conversation so far, takes the place of ``{history}`` in it, or
    goes in front. Raises OptionError when it holds none.
    """
    if template == "auto":
        template = family.template
    if "{question}" not in template:
        raise OptionError("template", f"{option('template')} must hold {{question}}, or be auto")
    if "{history}" not in template:
        return " ".join(filter(None, (history, fill_in(template, question=question))))
    # Without a history its place leaves no blank at the beginning.
    return fill_in(template, question=question, history=history).lstrip()


def fill_in(template: str, **values: str) -> str:
    """``template`` with ``{name}`` replaced by each named value.

    Not str.format: a template may hold other braces. In one pass: a value may hold a mark.
    """
    marks = "|".join(map(re.escape, values))
    return re.sub(rf"\{{({marks})\}}", lambda mark: values[mark[1]], template)
