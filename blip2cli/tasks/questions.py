"""Questions and where they come from: the command line, a text file, or a table per image."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from blip2cli.errors import OptionError
from blip2cli.tasks.choices import from_cell

TABLE_SUFFIXES = (".jsonl", ".csv", ".tsv")
_SHOWN_NAMES = 5  # names listed in a refusal; the rest are only counted


@dataclass(frozen=True)
class Question:
    """One question; ``question_id`` tells an image's questions apart in the output."""

    text: str
    question_id: str
    choices: tuple[str, ...] = ()  # the answers there are; empty: any, or those of all questions


@dataclass(frozen=True)
class Questions:
    """What is asked: the same of every image, or each image its own."""

    common: tuple[Question, ...] = ()
    per_image: Mapping[str, tuple[Question, ...]] | None = None
    source: str = field(default="-q", compare=False)  # what to call it in a message

    def of(self, file_name: str) -> tuple[Question, ...]:
        """The questions of one image, in order; empty when it has none."""
        if self.per_image is None:
            return self.common
        return self.per_image.get(file_name, ())

    @property
    def only(self) -> Collection[str] | None:
        """The images that have questions; ``None`` when every image has them."""
        return self.per_image

    def __len__(self) -> int:
        if self.per_image is None:
            return len(self.common)
        return sum(len(questions) for questions in self.per_image.values())


def from_texts(texts: Sequence[str]) -> Questions:
    """The same questions for every image, numbered from 1 in ``question_id``."""
    for text in texts:
        if not text.strip():
            raise OptionError("A question given with -q is empty; write what is to be asked.")
    return Questions(tuple(Question(t.strip(), str(i)) for i, t in enumerate(texts, 1)))


def from_file(path: str) -> Questions:
    """Read a questions file: ``.txt`` for every image, ``.jsonl``/``.csv``/``.tsv`` per image.

    Raises ``OptionError`` that names the file, and the line where one is to blame.
    """
    suffix = Path(path).suffix.lower()
    if suffix not in (".txt", *TABLE_SUFFIXES):
        raise OptionError(
            f"--questions {path}: give a .txt file with one question a line, or a .jsonl, .csv or "
            ".tsv table with the columns file_name and question."
        )
    text = _read(path)
    if suffix == ".txt":
        lines = [line.strip() for line in text.splitlines() if line.strip()]
        if not lines:
            raise OptionError(f"--questions {path} holds no question; write one a line.")
        for number, line in enumerate(text.splitlines(), 1):
            _check_text(path, number, line)
        return Questions(tuple(Question(t, str(i)) for i, t in enumerate(lines, 1)), source=path)
    records = _json_records(path, text) if suffix == ".jsonl" else _csv_records(path, text, suffix)
    return Questions(per_image=_by_image(path, records), source=path)


def check_names(names: Iterable[str], listing: Iterable[str]) -> None:
    """Raise ``OptionError`` when some of ``names`` are not in ``listing``.

    ``listing`` is read once, no further than needed, and not kept.
    """
    missing = dict.fromkeys(names)  # a set that keeps the file's order
    for file_name in listing:
        missing.pop(file_name, None)
        if not missing:
            return
    first = list(islice(missing, _SHOWN_NAMES))
    shown = ", ".join(first) + (", …" if len(missing) > _SHOWN_NAMES else "")
    counted = "1 image" if len(missing) == 1 else f"{len(missing)} images"
    raise OptionError(
        f"--questions names {counted} that the source does not hold ({shown}); write file_name "
        "as --dry-run lists it, relative to the source."
    )


def _read(path: str) -> str:
    try:
        # surrogateescape keeps file names in other encodings as the source spells them;
        # a question holding such bytes is refused by _check_text.
        return Path(path).read_bytes().decode("utf-8-sig", errors="surrogateescape")
    except FileNotFoundError:
        raise OptionError(f"--questions {path}: there is no such file.") from None
    except OSError as error:
        raise OptionError(f"--questions {path} cannot be read: {error.strerror}.") from None


def _check_text(path: str, line: int, text: str) -> None:
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        raise OptionError(
            f"--questions {path}, line {line}: this is not UTF-8; save the file as UTF-8."
        ) from None


def _json_records(path: str, text: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            record = json.loads(line)
        except json.JSONDecodeError as error:
            raise OptionError(
                f"--questions {path}, line {number}: not JSON ({error.msg} at column "
                f"{error.colno}); each line is one object."
            ) from None
        if not isinstance(record, dict):
            raise OptionError(
                f"--questions {path}, line {number}: expected an object with file_name and "
                f"question, found {line.strip()[:40]}."
            )
        yield number, record


def _csv_records(path: str, text: str, suffix: str) -> Iterator[tuple[int, Mapping[str, object]]]:
    reader = csv.DictReader(
        io.StringIO(text, newline=""), delimiter="\t" if suffix == ".tsv" else ",", strict=True
    )
    before = 0  # the last line of the record before: an error is in the one that follows
    try:
        columns = reader.fieldnames or []
        for needed in ("file_name", "question"):
            if needed not in columns:
                raise OptionError(
                    f"--questions {path}, line 1: there is no column {needed!r}; the first line "
                    "names the columns file_name, question and, if wanted, question_id and choices."
                )
        before = reader.line_num
        for record in reader:
            if None in record or None in record.values():
                raise OptionError(
                    f"--questions {path}, line {before + 1}: this line does not have "
                    f"{len(columns)} columns; put texts that hold a separator in double quotes."
                )
            yield before + 1, record
            before = reader.line_num
    except csv.Error as error:
        raise OptionError(f"--questions {path}, line {before + 1}: {error}.") from None


def _by_image(
    path: str, records: Iterable[tuple[int, Mapping[str, object]]]
) -> dict[str, tuple[Question, ...]]:
    found: dict[str, list[Question]] = {}
    seen: set[tuple[str, str]] = set()
    for ordinal, (number, record) in enumerate(records, 1):
        name = _text(path, number, record, "file_name").removeprefix("./")
        question = _text(path, number, record, "question")
        _check_text(path, number, question)
        question_id = _question_id(path, number, record, ordinal)
        if (name, question_id) in seen:
            raise OptionError(
                f"--questions {path}, line {number}: {name} has question_id {question_id} twice; "
                "give each of its questions an id of its own."
            )
        seen.add((name, question_id))
        choices = from_cell(record.get("choices"), f"--questions {path}, line {number}:")
        found.setdefault(name, []).append(Question(question, question_id, choices))
    if not found:
        raise OptionError(f"--questions {path} holds no question.")
    return {name: tuple(questions) for name, questions in found.items()}


def _text(path: str, line: int, record: Mapping[str, object], key: str) -> str:
    value = record.get(key)
    if not isinstance(value, str) or not value.strip():
        what = "is missing" if value is None else "is empty" if value == "" else "is no text"
        raise OptionError(f"--questions {path}, line {line}: {key} {what}.")
    return value if key == "file_name" else value.strip()


def _question_id(path: str, line: int, record: Mapping[str, object], ordinal: int) -> str:
    value = record.get("question_id")
    if value is None or value == "":
        return str(ordinal)
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise OptionError(
            f"--questions {path}, line {line}: question_id {value!r} is neither a number nor a "
            "text."
        )
    return str(value)
