"""The rows of one output as columns of a page."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from blip2cli.convert.column_types import EMBEDDING
from blip2cli.convert.images import default_text_column
from blip2cli.errors import SourceError, option
from blip2cli.evaluate.read_references import clean_name
from blip2cli.evaluate.read_rows import Columns, Table
from blip2cli.report.plain import number, plain, public_text, text_or_none
from blip2cli.sources.records import BadRow, json_records
from blip2cli.storage.hash_set import OCCURRENCE, ORDINAL

_MOST_CHOICES = 10  # of a row, the likeliest
# Columns that a page knows, or has no use for; others are shown as they are.
_KNOWN = frozenset((
    "file_name", "question", "question_id", OCCURRENCE, "guess", "confidence", "logprob",
    "choice_mass", "flag", "error", "probabilities", "candidates", "choice_scores", ORDINAL,
    EMBEDDING, "kind",
))  # fmt: skip
# What a confidence is, the best first.
CALIBRATED = "calibrated probability"
AMONG_CHOICES = "probability among the choices"
OF_TOKENS = "mean probability of a token (not calibrated)"


@dataclass
class PageRows:
    """Rows as columns of one length."""

    columns: dict[str, list[Any]]
    extra: dict[str, list[Any]] = field(default_factory=dict)  # columns the page does not know
    confidences: tuple[str, ...] = ()  # what they are, where rows have some
    cut: bool = False  # there are more rows, which a limit leaves out
    errors: Counter[str] = field(default_factory=Counter)  # images that failed, by type
    rows: int = 0  # those of the output; the others stand for images that failed
    task: str = "caption"  # the command that rows like these come from

    def __len__(self) -> int:
        return len(self.columns["file_name"])

    def counts(self) -> list[tuple[str, int]]:
        """What there is how often, but for zeros."""
        flags = Counter(flag for flag in self.columns["flag"] if flag)
        found = [
            ("rows", self.rows),
            ("images", len(set(self.columns["file_name"]))),
            ("failed", sum(self.errors.values())),
            *sorted(flags.items()),
        ]
        return [(name, count) for name, count in found if count]


def read_page_rows(table: Table, text_column: str | None, limit: int | None) -> PageRows:
    """The rows of ``table`` and the images that failed, of at most ``limit`` images.

    Raises SourceError.
    """
    # Where every image failed there are no rows, and so no columns.
    names = table.columns or (("file_name", "caption") if table.failures else ())
    name_column = next((n for n in ("file_name", "image_id", "question_id") if n in names), None)
    if name_column is None:
        raise SourceError(
            table.field,
            f"{str(table)!r} has no column file_name; it has {', '.join(names) or 'none'}",
            "a page shows rows of images",
        )
    text = text_column or default_text_column(names)
    if text not in names and EMBEDDING not in names:
        raise SourceError(
            table.field,
            f"{str(table)!r} has no column {text}; it has {', '.join(names)}",
            f"name the texts with {option('text_column')}",
        )
    extra = [name for name in names if name not in _KNOWN and name not in (text, name_column)]
    # The kind multimodal embeds each image with a text, which is what its rows are about.
    if EMBEDDING in names and text not in names and "text" in names:
        text = "text"
        extra.remove("text")
    task = "ask" if {"question", "question_id"} & set(names) else "caption"
    task = "embed" if EMBEDDING in names else task
    if table.settings is not None and table.settings.rows.get("task") in (
        "caption",
        "ask",
        "embed",
    ):
        task = table.settings.rows["task"]
    reader = _Reader(name_column, text, extra)
    wanted = list(dict.fromkeys((*_KNOWN - {EMBEDDING}, name_column, text, *extra)))
    for size, batch in table.batches(wanted):
        taken = size if limit is None else reader.fitting(batch[name_column], limit)
        reader.add({name: values[:taken] for name, values in batch.items()}, taken)
        if taken < size:
            reader.cut = True
            return reader.done(task)
    for path in table.failures:
        reader.add_failures(path, limit)
    return reader.done(task)


class _Reader:
    """Collects rows, a batch at a time."""

    def __init__(self, name: str, text: str, extra: Sequence[str]) -> None:
        self.cut = False  # a limit left images out
        self._seen: set[str] = set()  # images, where they are limited
        self._name, self._text = name, text
        self._columns: dict[str, list[Any]] = {
            name: []
            for name in (
                "file_name", "question", "question_id", OCCURRENCE, "text", "guess", "confidence",
                "logprob", "choice_mass", "flag", "error_type", "error", "probabilities",
                "candidates",
            )
        }  # fmt: skip
        self._extra: dict[str, list[Any]] = {name: [] for name in extra}
        self._confidences: dict[str, None] = {}
        self._errors: Counter[str] = Counter()
        self._rows = 0

    def add(self, batch: Columns, size: int) -> None:
        """Take ``size`` rows."""
        columns = self._columns
        columns["file_name"] += [_name(value) for value in batch[self._name]]
        columns["text"] += [text_or_none(value) for value in batch[self._text]]
        for name in ("question", "question_id", "guess", "flag"):
            columns[name] += [text_or_none(value) for value in batch[name]]
        columns[OCCURRENCE] += map(plain, batch[OCCURRENCE])
        for name in ("logprob", "choice_mass"):
            columns[name] += map(number, batch[name])
        columns["probabilities"] += map(_choices, batch["probabilities"])
        columns["candidates"] += map(_candidates, batch["candidates"])
        columns["confidence"] += map(
            self._confidence, batch["confidence"], batch["probabilities"], batch["logprob"]
        )
        for error in batch["error"]:
            kind, message = _error(error)
            columns["error_type"].append(kind)
            columns["error"].append(message)
            if kind is not None:
                self._errors[kind] += 1
        for name, values in self._extra.items():
            values += map(plain, batch[name])
        self._rows += size

    def fitting(self, names: Sequence[Any], limit: int) -> int:
        """How many of the next rows are about the first ``limit`` images."""
        for place, name in enumerate(map(_name, names)):
            if name not in self._seen and len(self._seen) == limit:
                return place
            self._seen.add(name)
        return len(names)

    def add_failures(self, path: str, limit: int | None) -> None:
        """Add a row for each image in a list of failures."""
        known = set(zip(self._columns["file_name"], self._columns[OCCURRENCE], strict=True))
        for _, record in json_records(path):
            if isinstance(record, BadRow):
                continue
            key = _name(record.get("file_name")), plain(record.get(OCCURRENCE))
            if key in known:  # it was tried again, and has rows by now
                continue
            if limit is not None and not self.fitting([key[0]], limit):
                self.cut = True
                continue
            kind = text_or_none(record.get("error_type")) or "unknown"
            self._errors[kind] += 1
            row = {
                "file_name": key[0],
                OCCURRENCE: key[1],
                "error_type": kind,
                "error": public_text(str(record.get("message") or "")),
            }
            for name, values in self._columns.items():
                values.append(row.get(name))
            for name, values in self._extra.items():
                values.append(plain(record.get(name)))

    def done(self, task: str) -> PageRows:
        """All rows."""
        confidences = tuple(self._confidences)
        return PageRows(
            self._columns, self._extra, confidences, self.cut, self._errors, self._rows, task
        )

    def _confidence(self, given: Any, probabilities: Any, logprob: Any) -> float | None:
        """The first there is: a calibrated one, the largest among choices, that of a token."""
        found = number(given)
        what = CALIBRATED
        if found is None and probabilities:
            shares = (number(one.get("probability")) for one in _objects(probabilities))
            found = max((share for share in shares if share is not None), default=None)
            what = AMONG_CHOICES
        if found is None and (nats := number(logprob)) is not None:
            found = round(math.exp(min(nats, 0.0)), 6)
            what = OF_TOKENS
        if found is not None:
            self._confidences[what] = None
        return found


def _name(value: Any) -> str:
    return text_or_none(clean_name(value)) or ""


def _error(value: Any) -> tuple[str | None, str | None]:
    """Type and message of a failed row, which holds both in one text."""
    if not value:
        return None, None
    kind, colon, message = str(value).partition(": ")
    if not colon or not kind.isidentifier():
        return "unknown", public_text(str(value))
    return kind, public_text(message)


def _choices(value: Any) -> list[list[Any]] | None:
    """The likeliest choices, each with its probability."""
    found = [[plain(one.get("choice")), number(one.get("probability"))] for one in _objects(value)]
    found.sort(key=lambda one: -(one[1] or 0.0))
    return found[:_MOST_CHOICES] or None


def _candidates(value: Any) -> list[list[Any]] | None:
    """Captions to choose from: text, log-probability, match."""
    return [
        [plain(one.get("text")), number(one.get("logprob")), number(one.get("match"))]
        for one in _objects(value)
    ] or None


def _objects(value: Any) -> list[Mapping[str, Any]]:
    """The objects in a list; none in a value of another form, as tables of others may hold."""
    return [one for one in value if isinstance(one, Mapping)] if isinstance(value, list) else []
