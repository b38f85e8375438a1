"""Visual question answering: every question about every image, or each image's own questions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from functools import cached_property
from typing import TYPE_CHECKING, Self, cast

from blip2cli.errors import OptionError, option
from blip2cli.options import AskOptions, DecodeOptions, Norm
from blip2cli.sinks.base import Column
from blip2cli.tasks.answers import Answer, generate_answers, match_choices, score_choices
from blip2cli.tasks.base import Row, blank, first_columns
from blip2cli.tasks.calibration import Calibration, settings_of
from blip2cli.tasks.chains import HISTORY, assign_rounds, check_chain
from blip2cli.tasks.prompting import (
    PreparedQuestion,
    check_choices,
    check_generative,
    check_retrieval,
    check_template,
    prepare_question,
)
from blip2cli.tasks.questions import Question, Questions

if TYPE_CHECKING:
    from blip2cli.images.batch_stream import LoadedBatch, LoadedImage
    from blip2cli.model.families import Family
    from blip2cli.model.vision.features import ImageFeatures
    from blip2cli.model.wrapper import Blip2
    from blip2cli.tasks.question_columns import QuestionColumns

_DEFAULTS = AskOptions()
_NO_QUESTION = Questions((Question("", "1"),))
# Columns of answers that are chosen; they are called as fields of ``Answer``.
_CHOSEN = (Column("probabilities", "choices"), Column("choice_mass", "float"))
CHOICE_COLUMNS = (*_CHOSEN, Column("choice_scores", "scores"))


@dataclass(frozen=True)
class AskTask:
    """One row per image and question, ordered by image, then question.

    ``options.template`` is ``auto`` (the paper's, by the language model's family) or any text that
    holds ``{question}``. Image features are computed once, however many questions follow.

    ``choices`` are the answers of every question that has none of its own; a question with choices
    is answered by one of them. A retrieval model can only choose, and needs no question then: it
    compares each choice with the image, in a template that holds ``{choice}``.

    Questions may refer to the answers before them (see ``chains``), also to one that is kept back
    because its confidence by ``calibration`` is too low. Questions, the template and, where
    ``choices_hold_columns``, the choices may hold columns of the source (see ``column_texts``).
    """

    questions: Questions
    # Questions and choices themselves are not taken from here: they may come from files.
    options: AskOptions = field(default_factory=AskOptions)
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    choices: tuple[str, ...] = ()
    # Most prompts decoded together: many questions make many prompts of one batch of images, and
    # each holds keys and values. Rows do not depend on it.
    prompt_batch: int = 1024
    calibration: Calibration | None = None
    choices_hold_columns: bool = False  # of the source: each image has its own
    carried: tuple[str, ...] = ()  # names of the columns that come with each image

    name = "ask"

    def __post_init__(self) -> None:
        if not len(self.questions) and not self.choices:
            raise OptionError(
                "question",
                "Nothing is asked",
                f'give a question with {option("question")} "…" or a file with '
                f"{option('questions')} FILE",
            )
        check_template(self.options.template, self._closed > 0)
        if self._open == 0:
            for each in fields(self.decode):
                if getattr(self.decode, each.name) != each.default:
                    raise OptionError(
                        each.name,
                        f"{option(each.name)} is about texts that are written, and here every "
                        "question has its choices",
                        "leave it out",
                    )
        for name in () if self._closed else ("match", "choice_norm", "choice_scores"):
            if getattr(self.options, name) != getattr(_DEFAULTS, name):
                raise OptionError(
                    name,
                    f"{option(name)} is about answers to choose from",
                    f"add {option('choices')}",
                )
        if self.calibration is not None:
            self.calibration.check_task(self.name, self._closed > 0, self._open > 0)
            if self._closed:
                self.calibration.check_norm(self.options.choice_norm, self.options.match)
        source = "question" if self.questions.source is None else "questions"
        for file_name, questions in self._questions.by_image.items():
            check_chain(questions, source, file_name)

    @property
    def columns(self) -> tuple[Column, ...]:
        columns: tuple[Column, ...] = (
            Column("question", "string"),
            Column("question_id", "string"),
            Column("answer", "string"),
            Column("logprob", "float"),
            Column("flag", "string"),
        )
        columns += self._choice_columns
        return columns if self.calibration is None else self.calibration.with_columns(columns)

    @property
    def settings(self) -> dict[str, object]:
        settings: dict[str, object] = {"task": self.name, "template": self.options.template}
        if self.questions.per_image is None:
            settings["question"] = [question.text for question in self.questions.common]
        else:
            settings["questions"] = self.questions.digest
        settings["choices"] = list(self.choices) or None
        settings |= self.options.settings
        settings["choice_norm"] = self._norm if self._closed else None
        if self._closed:
            settings["choice_mass"] = True  # rows have that column, those of older outputs do not
        for name in ("match", "choice_scores"):
            settings[name] = settings[name] or None
        return settings | self.decode.settings | settings_of(self.calibration)

    @property
    def fingerprints(self) -> str | None:
        """What tells whether an image's own questions have changed, see ``questions``."""
        return self.questions.fingerprints if self.questions.per_image is not None else None

    @property
    def only(self) -> Collection[str] | None:
        return self.questions.per_image

    @property
    def columns_used(self) -> dict[str, str]:
        """The columns of the source in texts, each with the option whose text holds it."""
        return self._columns.used if self._columns is not None else {}

    def check(self, model: str, family: Family) -> None:
        own = self._questions.by_image.values()
        has_questions = any(question.text for questions in own for question in questions)
        if not family.writes:
            if not self.options.match and any(len(choices) == 1 for choices in self._fixed_choices):
                raise OptionError(
                    "match",
                    f"A row with one text in {option('choices_column')} leaves nothing to compare",
                    f"add {option('match')}, which says how well a text fits by itself",
                )
            check_retrieval(model, self.options, has_questions, self._open > 0)
        else:
            check_generative(model, self.options, has_questions)

    def fit(self, model: Blip2) -> Self:
        self.check(model.name, model.family)
        if self._columns is not None:
            self._columns.check()
        if not model.writes and self.options.choices_column is not None:
            return self  # texts of rows may be alike
        for choices in set(filter(None, self._fixed_choices)):
            check_choices(model, self.options.template, choices)
        return self

    def rows(self, model: Blip2, batch: LoadedBatch) -> list[Row]:
        images = first_columns(batch)
        names = [str(image["file_name"]) for image in images]
        values: Sequence[Mapping[str, str]] = [{}] * len(images)
        questions = [self._questions.of(name) for name in names]
        if self._columns is not None:
            values = self._columns.of_batch(batch, len(images))
            questions = [self._columns.about(*each) for each in zip(names, values, strict=True)]
        if not any(questions):
            return []
        features = model.features(batch.pixels)
        template, new_tokens = self.options.template, self.decode.max_new_tokens
        all_depend = HISTORY in template
        rounds = [assign_rounds(chain, all_depend) for chain in questions]
        answered: list[list[tuple[str, Answer]]] = [[] for _ in names]
        for number in range(1 + max(max(chain, default=0) for chain in rounds)):
            asked = []
            prepared = []
            for image, name in enumerate(names):
                turns = [(text, answer.text) for text, answer in answered[image]]
                for question, in_round in zip(questions[image], rounds[image], strict=True):
                    if in_round == number:
                        asked.append(image)
                        about = (image, name, turns, new_tokens, values[image])
                        prepared.append(prepare_question(model, template, question, *about))
            answers = self._answer(model, features, prepared)
            for image, one, answer in zip(asked, prepared, answers, strict=True):
                answered[image].append((one.text, answer))
        rows: list[Row] = [
            image
            | {
                "question": text,
                "question_id": question.question_id,
                "answer": answer.text,
                "logprob": answer.logprob,
                "flag": answer.flag,
            }
            | {column.name: getattr(answer, column.name) for column in self._choice_columns}
            for image, chain, turns in zip(images, questions, answered, strict=True)
            for question, (text, answer) in zip(chain, turns, strict=True)
        ]
        if self.calibration is not None:
            self.calibration.add_confidence(rows, "answer", model)
        return rows

    def screened(self, model: Blip2, batch: LoadedBatch) -> LoadedBatch:
        """``batch``, in which images failed whose columns do not fit into their prompts."""
        return self._columns.screened(model, batch) if self._columns is not None else batch

    def row_count(self, file_name: str) -> int:
        return len(self._questions.of(file_name))

    def failed_rows(self, item: LoadedImage) -> list[Row]:
        columns, own = self._columns, self._questions.of(item.file_name)
        return [
            blank(item, self.columns)
            | {"question": question.text, "question_id": question.question_id}
            for question in (own if columns is None else columns.shown(item))
        ]

    @cached_property
    def _questions(self) -> Questions:
        """The questions with their choices; an empty one where there are only choices."""
        questions = self.questions if len(self.questions) else _NO_QUESTION
        return questions.with_choices(self.choices)

    @cached_property
    def _columns(self) -> QuestionColumns | None:
        """What stands for columns of the source in texts; None where none holds a brace."""
        texts = (self.options.template, *(question.text for question in self.questions.common))
        if not self.choices_hold_columns and not any("{" in text for text in texts):
            return None
        from blip2cli.tasks.question_columns import QuestionColumns

        choices, new = self.choices if self.choices_hold_columns else (), self.decode.max_new_tokens
        return QuestionColumns(self._questions, self.options, new, choices, self.carried)

    @cached_property
    def _choices(self) -> list[tuple[str, ...]]:
        """The choices of every question."""
        by_image = self._questions.by_image
        return [question.choices for questions in by_image.values() for question in questions]

    @property
    def _fixed_choices(self) -> list[tuple[str, ...]]:
        """The choices that are the same for every image."""
        held = self.choices if self.choices_hold_columns else None
        return [choices for choices in self._choices if choices != held]

    @cached_property
    def _closed(self) -> int:
        """The number of questions with choices."""
        return sum(map(bool, self._choices))

    @cached_property
    def _open(self) -> int:
        return len(self._questions) - self._closed

    @cached_property
    def _choice_columns(self) -> tuple[Column, ...]:
        if not self._closed:
            return ()
        return CHOICE_COLUMNS if self.options.choice_scores else _CHOSEN

    @property
    def _norm(self) -> Norm:
        """How choices compare: as is asked for, else as those that were calibrated."""
        if self.options.choice_norm is None and self.calibration is not None:
            return cast("Norm", self.calibration.norm)
        return self.options.choice_norm or "sum"

    def _answer(
        self, model: Blip2, features: ImageFeatures, questions: Sequence[PreparedQuestion]
    ) -> list[Answer]:
        """The answers, in order; open and closed questions may be mixed."""
        open_ = [n for n, question in enumerate(questions) if not question.choices]
        closed = [n for n, question in enumerate(questions) if question.choices]
        found: dict[int, Answer] = {}
        for start in range(0, len(open_), self.prompt_batch):
            chunk = open_[start : start + self.prompt_batch]
            answers = generate_answers(model, features, [questions[n] for n in chunk], self.decode)
            found.update(zip(chunk, answers, strict=True))
        if closed:
            chosen = [questions[n] for n in closed]
            if model.writes:
                options = replace(self.options, choice_norm=self._norm)
                answers = score_choices(model, features, chosen, options)
            else:
                answers = match_choices(model, features, chosen, self.options.match)
            found.update(zip(closed, answers, strict=True))
        return [found[number] for number in range(len(questions))]
