"""Answers: every question put to every image, or to each image its own questions."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field
from itertools import chain
from typing import TYPE_CHECKING, Self

from blip2cli.errors import OptionError
from blip2cli.model.limits import check_decoding, check_writes
from blip2cli.model.resolve import family_at_hand
from blip2cli.options import DecodeOptions, ModelOptions
from blip2cli.sinks.base import Column
from blip2cli.tasks.base import Row, blank, decode_settings, good, head, logprob
from blip2cli.tasks.questions import Questions

if TYPE_CHECKING:
    from blip2cli.images.loader import Loaded, LoadedBatch
    from blip2cli.model.wrapper import Blip2

# Prompts decoded together. Many questions make many prompts of one batch of images, and each
# holds memory for its attention. Texts do not depend on how prompts are grouped.
_AT_ONCE = 128


@dataclass(frozen=True)
class AskTask:
    """One row per image and question, ordered by image, then question.

    ``template`` is ``auto`` (the paper's, by the language model's family) or any text that holds
    ``{question}``. Image features are computed once, however many questions follow.
    """

    questions: Questions
    template: str = "auto"
    decode: DecodeOptions = field(default_factory=DecodeOptions)

    name = "ask"

    def __post_init__(self) -> None:
        if not len(self.questions):
            raise OptionError(
                'Nothing is asked; give a question with -q "…" or a file with --questions FILE.'
            )
        if self.template != "auto" and "{question}" not in self.template:
            raise OptionError(
                f"--template {self.template!r} does not hold {{question}}, which marks the "
                "question's place."
            )
        check_decoding(self.decode)

    @property
    def columns(self) -> tuple[Column, ...]:
        return (
            Column("question", "string"),
            Column("question_id", "string"),
            Column("answer", "string"),
            Column("logprob", "float"),
        )

    @property
    def settings(self) -> dict[str, object]:
        settings: dict[str, object] = {"task": self.name, "template": self.template}
        if self.questions.per_image is None:
            settings["questions"] = [question.text for question in self.questions.common]
        else:
            settings["questions_file"] = self.questions.source
        return settings | decode_settings(self.decode)

    @property
    def only(self) -> Collection[str] | None:
        return self.questions.only

    def check(self, model: ModelOptions) -> None:
        check_writes(model.model, family_at_hand(model))

    def fit(self, model: Blip2) -> Self:
        check_writes(model.name, model.family)
        return self

    def rows(self, model: Blip2, batch: LoadedBatch) -> list[Row]:
        from blip2cli.model.prompts import Prompt, question_prompt

        items = good(batch)
        asked = [
            (i, item, q) for i, item in enumerate(items) for q in self.questions.of(item.file_name)
        ]
        if not asked:
            return []
        features = model.features(batch.pixels)
        prompts = [
            Prompt(
                image=i,
                text=question_prompt(self.template, question.text, model.family),
                # The id takes part in the name that seeds sampling, so that two questions about
                # one image are drawn independently.
                name=f"{item.file_name}\x00{question.question_id}",
            )
            for i, item, question in asked
        ]
        rows = []
        answers = chain.from_iterable(
            model.generate(features, prompts[start : start + _AT_ONCE], self.decode)
            for start in range(0, len(prompts), _AT_ONCE)
        )
        for (_, item, question), texts in zip(asked, answers, strict=True):
            rows.append(
                head(item)
                | {
                    "question": question.text,
                    "question_id": question.question_id,
                    "answer": texts[0].text,
                    "logprob": logprob(texts[0]),
                }
            )
        return rows

    def row_count(self, file_name: str) -> int:
        return len(self.questions.of(file_name))

    def failed_rows(self, item: Loaded) -> list[Row]:
        return [
            blank(item, self.columns)
            | {"question": question.text, "question_id": question.question_id}
            for question in self.questions.of(item.file_name)
        ]
