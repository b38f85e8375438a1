"""Answers: every question put to every image, or to each image its own questions."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Self

from blip2cli.errors import OptionError
from blip2cli.model.checkpoint.resolve import family_at_hand
from blip2cli.model.limits import check_decoding
from blip2cli.options import DecodeOptions, ModelOptions, Norm
from blip2cli.sinks.base import Column
from blip2cli.tasks.answers import Answer, chosen, fitting, written
from blip2cli.tasks.base import Row, blank, decode_settings, good, head
from blip2cli.tasks.chains import HISTORY, check_chain, stages
from blip2cli.tasks.choices import NORMS, check_unused
from blip2cli.tasks.prompting import Wanted, check_compares, check_reads, check_template, word
from blip2cli.tasks.questions import Question, Questions

if TYPE_CHECKING:
    from blip2cli.images.loader import LoadedBatch, LoadedImage
    from blip2cli.model.checkpoint.directory import Family
    from blip2cli.model.vision.features import ImageFeatures
    from blip2cli.model.wrapper import Blip2

# Prompts decoded together. Many questions make many prompts of one batch of images, and each
# holds memory for its attention. Texts do not depend on how prompts are grouped.
_AT_ONCE = 128
_NO_QUESTION = Questions((Question("", "1"),))


@dataclass(frozen=True)
class AskTask:
    """One row per image and question, ordered by image, then question.

    ``template`` is ``auto`` (the paper's, by the language model's family) or any text that holds
    ``{question}``. Image features are computed once, however many questions follow.

    ``choices`` are the answers of every question that has none of its own; a question with choices
    is answered by one of them. A retrieval model can only choose, and needs no question then: it
    compares each choice with the image, in a ``template`` that holds ``{choice}``.

    Questions may use the answers before them (see ``chains``).
    """

    questions: Questions
    template: str = "auto"
    decode: DecodeOptions = field(default_factory=DecodeOptions)
    choices: tuple[str, ...] = ()
    norm: Norm = "sum"  # choices compare by the log-probability of all their tokens, or of one
    match: bool = False  # a retrieval model's matching head compares, not its projections

    name = "ask"

    def __post_init__(self) -> None:
        if not len(self.questions) and not self.choices:
            raise OptionError(
                'Nothing is asked; give a question with -q "…" or a file with --questions FILE.'
            )
        if self.norm not in NORMS:
            raise OptionError(f"--choice-norm is {' or '.join(NORMS)}, not {self.norm}.")
        check_template(self.template, self._closed > 0)
        check_decoding(self.decode)
        if self._open == 0:
            check_unused(self.decode)
        if not self._closed and (self.norm != "sum" or self.match):
            flag = "--match" if self.match else "--choice-norm"
            raise OptionError(f"{flag} is about answers to choose from; add --choices.")
        where = self.questions.source if self.questions.source == "-q" else "--questions"
        for name, chain in self._chains.items():
            check_chain(chain, f"{where} {name}: " if name else f"{where} ")

    @property
    def columns(self) -> tuple[Column, ...]:
        columns = (
            Column("question", "string"),
            Column("question_id", "string"),
            Column("answer", "string"),
            Column("logprob", "float"),
            Column("flag", "string"),
        )
        return columns + ((Column("probabilities", "choices"),) if self._closed else ())

    @property
    def settings(self) -> dict[str, object]:
        settings: dict[str, object] = {"task": self.name, "template": self.template}
        if self.questions.per_image is None:
            settings["questions"] = [question.text for question in self.questions.common]
        else:
            settings["questions_file"] = self.questions.source
        settings |= {
            "choices": list(self.choices) or None,
            "choice_norm": self.norm if self._closed else None,
            "match": self.match or None,
        }
        return settings | decode_settings(self.decode)

    @property
    def only(self) -> Collection[str] | None:
        return self.questions.only

    def check(self, model: ModelOptions) -> None:
        self._check_family(model.model, family_at_hand(model))

    def fit(self, model: Blip2) -> Self:
        self._check_family(model.name, model.family)
        if model.family != "itm":
            for choices in {self._choices_of(q) for chain in self._chains.values() for q in chain}:
                model.encode_choices(choices)
        return self

    def rows(self, model: Blip2, batch: LoadedBatch) -> list[Row]:
        items = good(batch)
        chains = [self._asked.of(item.file_name) for item in items]
        if not any(chains):
            return []
        features = model.features(batch.pixels)
        asked: list[list[tuple[str, Answer]]] = [[] for _ in items]
        always = HISTORY in self.template
        rounds = [stages(chain, always) for chain in chains]
        for number in range(1 + max(max(chain, default=0) for chain in rounds)):
            members = [
                (image, question)
                for image, chain in enumerate(chains)
                for question, turn in zip(chain, rounds[image], strict=True)
                if turn == number
            ]
            wanted = []
            for image, question in members:
                turns = [(text, answer.text) for text, answer in asked[image]]
                # The id takes part in the name that seeds sampling, so that two questions about
                # one image are drawn independently.
                name = f"{items[image].file_name}\x00{question.question_id}"
                choices = self._choices_of(question)
                new = self.decode.max_new_tokens
                wanted.append(
                    word(model, self.template, image, name, question.text, choices, turns, new)
                )
            answers = self._answers(model, features, wanted)
            for (image, _), one, answer in zip(members, wanted, answers, strict=True):
                asked[image].append((one.question, answer))
        return [
            self._row(item, text, question.question_id, answer)
            for item, chain, answered in zip(items, chains, asked, strict=True)
            for question, (text, answer) in zip(chain, answered, strict=True)
        ]

    def row_count(self, file_name: str) -> int:
        return len(self._asked.of(file_name))

    def failed_rows(self, item: LoadedImage) -> list[Row]:
        return [
            blank(item, self.columns)
            | {"question": question.text, "question_id": question.question_id}
            for question in self._asked.of(item.file_name)
        ]

    @cached_property
    def _asked(self) -> Questions:
        """The questions; where there is none, one without words that only has choices."""
        return self.questions if len(self.questions) else _NO_QUESTION

    @property
    def _chains(self) -> Mapping[str, tuple[Question, ...]]:
        """Every conversation there is, by the image's name; "" when it is that of all images."""
        per_image = self._asked.per_image
        return {"": self._asked.common} if per_image is None else per_image

    @cached_property
    def _closed(self) -> int:
        """How many questions have choices."""
        return sum(bool(self._choices_of(q)) for chain in self._chains.values() for q in chain)

    @cached_property
    def _open(self) -> int:
        return len(self._asked) - self._closed

    def _choices_of(self, question: Question) -> tuple[str, ...]:
        return question.choices or self.choices

    def _check_family(self, model: str, family: Family | None) -> None:
        """Raise OptionError when a model of this family cannot do this; None: not known yet."""
        asks = len(self.questions) > 0
        if family == "itm":
            check_compares(model, self.template, asks, self._open > 0, self.norm)
        elif family is not None:
            check_reads(model, self.template, asks, self.match)

    def _answers(
        self, model: Blip2, features: ImageFeatures, wanted: Sequence[Wanted]
    ) -> list[Answer]:
        """An answer to each, in order; open and closed questions may be mixed."""
        open_ = [n for n, one in enumerate(wanted) if not one.choices]
        closed = [n for n, one in enumerate(wanted) if one.choices]
        found: dict[int, Answer] = {}
        for start in range(0, len(open_), _AT_ONCE):
            part = open_[start : start + _AT_ONCE]
            answers = written(model, features, [wanted[n] for n in part], self.decode)
            found.update(zip(part, answers, strict=True))
        if closed:
            some = [wanted[n] for n in closed]
            if model.family == "itm":
                answers = fitting(model, features, some, self.match)
            else:
                answers = chosen(model, features, some, self.norm)
            found.update(zip(closed, answers, strict=True))
        return [found[number] for number in range(len(wanted))]

    def _row(self, item: LoadedImage, asked: str, question_id: str, answer: Answer) -> Row:
        row = head(item) | {
            "question": asked,
            "question_id": question_id,
            "answer": answer.text,
            "logprob": answer.logprob,
            "flag": answer.flag,
        }
        return row | {"probabilities": answer.probabilities} if self._closed else row
