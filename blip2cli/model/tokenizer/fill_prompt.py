"""Prompts: a question filled into its template (``families/*/family.py`` has each family's own)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

from blip2cli.errors import OptionError, option
from blip2cli.model.families import Family

_MARK = re.compile(r"\{\{|\}\}|\{([^{}]*)\}")


@dataclass(frozen=True)
class Prompt:
    """One text to be generated about one image."""

    image: int  # row in the features
    text: str | None  # None: a caption without prompt
    name: str  # the image's name (and question id): sampling draws from a seed of it
    max_new_tokens: int | None = None  # a limit of this text's own, below the options'


def question_prompt(
    template: str,
    question: str,
    family: Family,
    history: str = "",
    columns: Mapping[str, str] | None = None,
) -> str:
    """The prompt for ``question``.

    ``template`` is ``auto`` (the paper's for this language model) or any text that holds
    ``{question}``. ``history``, the conversation so far, takes the place of ``{history}`` in it, or
    goes in front. ``columns`` are values of the source by the names of its columns. Raises
    OptionError when it holds no question.
    """
    if template == "auto":
        template = family.template
    if "{question}" not in template:
        raise OptionError("template", f"{option('template')} must hold {{question}}, or be auto")
    values = {**(columns or {}), "question": question}
    if "{history}" not in template:
        return " ".join(filter(None, (history, fill_in(template, values))))
    # Without a history its place leaves no blank at the beginning.
    return fill_in(template, values | {"history": history}).lstrip()


def marks_in(template: str) -> list[str]:
    """The names in ``template`` that stand in braces, such as ``question``, in order."""
    return [name for name in _MARK.findall(template) if name]


def has_lone_brace(template: str) -> bool:
    """Whether a brace opens in ``template`` and names nothing, as in ``{alt`` and ``{}``."""
    return "{" in _MARK.sub(lambda found: "{" if found[0] == "{}" else "", template)


def fill_in(template: str, values: Mapping[str, str]) -> str:
    """``template`` with ``{name}`` replaced by each named value; ``{{`` and ``}}`` are braces.

    Not str.format: a template may hold other braces. In one pass: a value may hold a mark.
    """

    def filled(found: re.Match[str]) -> str:
        name = found[1]
        return found[0][0] if name is None else values.get(name, found[0])

    return _MARK.sub(filled, template)
