"""What stands for columns of the source in questions, templates and choices, image by image."""

from __future__ import annotations

import contextlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

from blip2cli.errors import ImageError
from blip2cli.model.tokenizer.fill_prompt import fill_in
from blip2cli.options import AskOptions
from blip2cli.tasks.choices import filled_choices
from blip2cli.tasks.column_texts import (
    NO_VALUES,
    all_columns,
    check_columns,
    check_prompt_length,
    check_tokens,
    column_values,
    screened,
)
from blip2cli.tasks.prompting import check_choices, prepare_question
from blip2cli.tasks.questions import Question, Questions

if TYPE_CHECKING:
    from blip2cli.images.batch_stream import LoadedBatch, LoadedImage
    from blip2cli.model.wrapper import Blip2

# What wins over columns of these names.
IN_QUESTIONS = ("answer", "history")
IN_TEMPLATES = ("question", "choice", *IN_QUESTIONS)


@dataclass(frozen=True)
class QuestionColumns:
    """The texts that may hold columns, and the names of the columns that come with each image."""

    questions: Questions
    options: AskOptions  # whose template is meant
    new_tokens: int
    choices: tuple[str, ...] = ()  # with columns
    carried: tuple[str, ...] = ()

    @cached_property
    def used(self) -> dict[str, str]:
        """The columns in the texts, each with the option whose text holds it."""
        asked = "question" if self.questions.source is None else "questions"
        chosen = "choices" if self.options.choices is not None else "choices_column"
        questions = ((asked, question.text, IN_QUESTIONS) for question in self.questions.common)
        template = ("template", self.options.template, IN_TEMPLATES)
        choices = ((chosen, text, ()) for text in self.choices)
        return all_columns([*questions, template, *choices])

    def check(self) -> None:
        """Raise OptionError for columns that do not come with the images."""
        check_columns(self.used, self.carried)

    def of(self, item: LoadedImage) -> Mapping[str, str]:
        """The values of the columns in the texts. Raises ImageError."""
        return column_values(item, self.carried, self.used)

    def of_batch(self, batch: LoadedBatch, count: int) -> Sequence[Mapping[str, str]]:
        """The values of each of the ``count`` good images of a batch."""
        if not self.used:
            return [NO_VALUES] * count
        return [self.of(item) for item in batch.items if item.error is None]

    def about(self, file_name: str, values: Mapping[str, str]) -> tuple[Question, ...]:
        """The questions about an image with its own choices. Raises OptionError."""
        questions = self.questions.of(file_name)
        if not self.choices:
            return questions
        choices = filled_choices(self.choices, values, 1 if self.options.match else 2)
        return tuple(
            replace(question, choices=choices) if question.choices == self.choices else question
            for question in questions
        )

    def screened(self, model: Blip2, batch: LoadedBatch) -> LoadedBatch:
        """``batch``, in which images failed whose columns do not fit into their prompts."""
        return screened(batch, partial(self._check, model))

    def shown(self, item: LoadedImage) -> tuple[Question, ...]:
        """The questions about an image that failed, as its rows show them."""
        values: Mapping[str, str] = NO_VALUES
        with contextlib.suppress(ImageError):
            values = self.of(item)
        return tuple(
            one if one.literal else replace(one, text=fill_in(one.text, values))
            for one in self.questions.of(item.file_name)
        )

    def _check(self, model: Blip2, item: LoadedImage) -> None:
        """Raise ImageError or UserError for an image whose columns do not fit."""
        values, template = self.of(item), self.options.template
        check_tokens(model, values)
        new = self.new_tokens
        for question in self.about(item.file_name, values):
            one = prepare_question(model, template, question, 0, item.file_name, (), new, values)
            if len(one.choices) > 1 or (one.choices and model.writes):
                check_choices(model, template, one.choices, values)
            if model.writes:
                longest = max(map(len, model.encode_choices(one.choices))) if one.choices else new
                check_prompt_length(model, one.prompt.text or "", longest)
            else:
                model.check_texts(one.choice_texts)
