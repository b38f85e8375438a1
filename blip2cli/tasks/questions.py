"""Questions: from the command line, from a text file, or from a table with each image's own."""

from __future__ import annotations

import base64
import hashlib
import json
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import islice

from blip2cli.errors import OptionError, option
from blip2cli.options import AskOptions
from blip2cli.storage.hash_set import HashSet
from blip2cli.storage.text_encoding import from_utf8
from blip2cli.tasks.choices import from_cell, from_texts_column
from blip2cli.tasks.text_files import TABLE_SUFFIXES, TextFile

_FINGERPRINT_BYTES = 6
_SHOWN_NAMES = 5  # file names in a message; the rest are only counted


@dataclass(frozen=True)
class Question:
    """One question; ``question_id`` tells an image's questions apart in the output."""

    text: str
    question_id: str
    choices: tuple[str, ...] = ()  # empty: an open question, or with the choices of the task
    # Of a table: braces in it are braces, but for those of {answer} and {history}.
    literal: bool = field(default=False, compare=False)


@dataclass(frozen=True)
class Questions:
    """The same questions for every image, or each image its own."""

    common: tuple[Question, ...] = ()
    per_image: Mapping[str, tuple[Question, ...]] | None = None  # by file name
    source: str | None = field(default=None, compare=False)  # the file they were read from

    @property
    def by_image(self) -> Mapping[str, tuple[Question, ...]]:
        """The questions by file name; those of every image under the empty name."""
        return {"": self.common} if self.per_image is None else self.per_image

    @cached_property
    def fingerprints(self) -> str:
        """Six bytes for the questions of each image, sorted, in base64; see ``check_unchanged``."""
        found = sorted(_fingerprint(*each) for each in self.by_image.items())
        return base64.b64encode(b"".join(found)).decode()

    @property
    def digest(self) -> str:
        """The questions of all images in one short text."""
        digest = hashlib.sha256(self.fingerprints.encode()).hexdigest()
        return f"of {len(self.by_image)} images, sha256 {digest[:16]}"

    def of(self, file_name: str) -> tuple[Question, ...]:
        """The questions about one image, in order; empty when it has none."""
        if self.per_image is None:
            return self.common
        return self.per_image.get(file_name, ())

    def __len__(self) -> int:
        return sum(len(questions) for questions in self.by_image.values())

    def with_choices(self, choices: tuple[str, ...]) -> Questions:
        """The questions with ``choices`` where they have none of their own."""
        if not choices:
            return self

        closed = {
            name: tuple(q if q.choices else replace(q, choices=choices) for q in questions)
            for name, questions in self.by_image.items()
        }
        if self.per_image is None:
            return replace(self, common=closed[""])
        return replace(self, per_image=closed)


def check_unchanged(
    per_image: Mapping[str, tuple[Question, ...]], before: str | None, done: HashSet
) -> None:
    """Raise ``OptionError`` when an image that is ``done`` had other questions than it has now.

    ``before`` are the ``fingerprints`` from then. Questions about other images may have come, or
    may have changed.
    """
    data = base64.b64decode(before or "")
    known = {data[at : at + _FINGERPRINT_BYTES] for at in range(0, len(data), _FINGERPRINT_BYTES)}
    for name, questions in per_image.items():
        if name in done and _fingerprint(name, questions) not in known:
            raise OptionError(
                "questions",
                f"{option('resume')}: the questions about {name!r} in {option('questions')} have "
                "changed since they were answered",
                "give them as they were, or choose another output",
            )


def _fingerprint(name: str, questions: Sequence[Question]) -> bytes:
    about = [name, [[q.text, q.question_id, *q.choices] for q in questions]]
    return hashlib.sha256(json.dumps(about).encode()).digest()[:_FINGERPRINT_BYTES]


def from_options(options: AskOptions) -> Questions:
    """The questions of the options. Raises OptionError."""
    if options.questions is not None:
        return from_file(options.questions, options.choices_column)
    return from_texts(options.question)


def from_texts(texts: Sequence[str]) -> Questions:
    """The same questions for every image, numbered from 1 in ``question_id``."""
    for text in texts:
        if not text.strip():
            raise OptionError(
                "question",
                f"A question given with {option('question')} is empty",
                "write what is to be asked",
            )
    return Questions(tuple(Question(t.strip(), str(i)) for i, t in enumerate(texts, 1)))


def from_file(path: str, choices_column: str | None = None) -> Questions:
    """Read a questions file: ``.txt`` for every image, ``.jsonl``/``.csv``/``.tsv`` per image.

    ``choices_column`` holds choices, one or several, in place of ``choices``; where it is given a
    row needs no question.

    Raises ``OptionError`` that names the file, and the line where one is to blame.
    """
    file = TextFile("questions", path)
    if file.suffix == ".txt":
        if choices_column is not None:
            raise OptionError(
                "choices_column",
                f"{file} is no table: there is no column {choices_column!r}",
                "give a .jsonl, .csv or .tsv",
            )
        lines = list(file.lines())
        if not lines:
            raise file.error(f"{file} holds no question", "write one a line")
        for number, line in lines:
            file.check_utf8(number, line)
        return replace(from_texts([line for _, line in lines]), source=path)
    if file.suffix not in TABLE_SUFFIXES:
        raise file.error(
            f"{file}: give a .txt file with one question a line, or a .jsonl, .csv or .tsv table "
            "with the columns file_name and question"
        )
    return Questions(per_image=_per_image(file, choices_column), source=path)


def check_names(names: Iterable[str], listing: Iterable[str]) -> None:
    """Raise ``OptionError`` when some of ``names`` are not in ``listing``.

    ``listing`` is consumed once, no further than needed, and not stored.
    """
    missing = dict.fromkeys(names)  # an ordered set
    for file_name in listing:
        missing.pop(file_name, None)
        if not missing:
            return
    first = list(islice(missing, _SHOWN_NAMES))
    shown = ", ".join(first) + (", …" if len(missing) > _SHOWN_NAMES else "")
    counted = "1 image" if len(missing) == 1 else f"{len(missing)} images"
    raise OptionError(
        "questions",
        f"{option('questions')} names {counted} that the source does not hold ({shown})",
        f"write file_name as {option('dry_run')} lists it, relative to the source",
    )


def _per_image(file: TextFile, choices_column: str | None) -> dict[str, tuple[Question, ...]]:
    columns = file.columns()
    for needed in ("file_name", choices_column or "question"):
        if columns is not None and needed not in columns:
            raise file.error(
                f"{file.at(1)} there is no column {needed!r}",
                "the first line names the columns file_name, question and, if wanted, question_id "
                "and choices",
            )
    found: dict[str, list[Question]] = {}
    seen: set[tuple[str, str]] = set()
    for ordinal, (number, record) in enumerate(file.table(), 1):
        name = from_utf8(_text(file, number, record, "file_name")).removeprefix("./")
        question = ""
        if choices_column is None or record.get("question"):
            question = _text(file, number, record, "question").strip()
        file.check_utf8(number, question)
        question_id = _question_id(file, number, record, ordinal)
        if (name, question_id) in seen:
            raise file.error(
                f"{file.at(number)} {name} has question_id {question_id} twice",
                "give each of its questions an id of its own",
            )
        seen.add((name, question_id))
        if choices_column is None:
            own = from_cell(record.get("choices"), file.field, file.at(number))
        else:
            own = from_texts_column(record.get(choices_column), choices_column, file.at(number))
        found.setdefault(name, []).append(Question(question, question_id, own, literal=True))
    if not found:
        raise file.error(f"{file} holds no question")
    return {name: tuple(questions) for name, questions in found.items()}


def _text(file: TextFile, line: int, record: Mapping[str, object], column: str) -> str:
    value = record.get(column)
    if not isinstance(value, str) or not value.strip():
        what = "is missing" if value is None else "is empty" if value == "" else "is no text"
        raise file.error(f"{file.at(line)} {column} {what}")
    return value


def _question_id(file: TextFile, line: int, record: Mapping[str, object], ordinal: int) -> str:
    value = record.get("question_id")
    if isinstance(value, float):  # as pandas writes whole numbers where some are missing
        value = None if math.isnan(value) else int(value) if value.is_integer() else value
    if value is None or value == "":
        return str(ordinal)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise file.error(f"{file.at(line)} question_id {value!r} is neither a number nor a text")
    return str(value)
