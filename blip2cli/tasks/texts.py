"""Texts to be embedded, and where they come from: the command line, or a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from blip2cli.errors import OptionError, SourceError
from blip2cli.sources.records import Record, csv_records, json_records, text_records

TEXT_COLUMN = "text"


@dataclass(frozen=True)
class Texts:
    """Texts in the order they were given, none of them empty."""

    lines: tuple[str, ...] = ()
    file: str | None = None  # where they were read from

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def settings(self) -> dict[str, object]:
        """What tells these texts from others: themselves, or a digest of those of a file."""
        if not self.lines:
            return {}
        if self.file is None:
            return {"text": list(self.lines)}
        digest = hashlib.sha256(json.dumps(self.lines).encode()).hexdigest()
        return {"texts": f"{len(self.lines)} texts, sha256 {digest[:16]}"}


def from_lines(texts: Sequence[str]) -> Texts:
    """The texts of the command line. Raises OptionError for an empty one."""
    for text in texts:
        if not text.strip():
            raise OptionError("A text given with --text is empty; write what is to be embedded.")
        if not _is_utf8(text):
            raise OptionError(f"--text {text!r} is not UTF-8; write it as UTF-8.")
    return Texts(tuple(texts))


def from_file(path: str) -> Texts:
    """The texts of a file: a line each of a ``.txt``, or the column ``text`` of a ``.jsonl``,
    ``.csv`` or ``.tsv``.

    Empty lines are passed over. Raises OptionError that names the file, and the line where one is
    to blame.
    """
    try:
        lines = tuple(_texts(path, *_records(path)))
    except SourceError as error:
        raise OptionError(f"--texts: {error}") from None
    except OSError as error:
        raise OptionError(f"--texts {path} cannot be read: {error.strerror or error}.") from None
    if not lines:
        raise OptionError(f"--texts {path} holds no text; write one a line.")
    return Texts(lines, path)


def _records(path: str) -> tuple[Iterator[Record], str]:
    """The rows of a file, and the column its texts are in."""
    match Path(path).suffix.lower():
        case ".txt":
            return text_records(path), "file_name"
        case ".jsonl":
            return json_records(path), TEXT_COLUMN
        case ".csv":
            return csv_records(path, ","), TEXT_COLUMN
        case ".tsv":
            return csv_records(path, "\t"), TEXT_COLUMN
        case _:
            raise OptionError(
                f"--texts {path}: give a .txt file with one text a line, or a .jsonl, .csv or "
                ".tsv table with the column text."
            )


def _texts(path: str, records: Iterator[Record], column: str) -> Iterator[str]:
    for number, record in records:
        text = record.get(column)
        if not isinstance(text, str) or not text.strip():
            if column != TEXT_COLUMN:
                continue  # a line of blanks
            what = "is no text" if text else "is missing or empty"
            raise OptionError(f"--texts {path}, line {number}: {TEXT_COLUMN} {what}.")
        if not _is_utf8(text):
            raise OptionError(
                f"--texts {path}, line {number}: this is not UTF-8; save the file as UTF-8."
            )
        yield text


def _is_utf8(text: str) -> bool:
    """Whether ``text`` holds no lone surrogates, which stand for bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
