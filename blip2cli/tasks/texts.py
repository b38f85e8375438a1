"""Texts to embed, from the command line or from a file."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from blip2cli.errors import OptionError, either, option
from blip2cli.options import EmbedOptions
from blip2cli.tasks.text_files import TABLE_SUFFIXES, TextFile, is_utf8

# Also those of rows of captions and answers.
TEXT_COLUMNS = ("text", "caption", "answer")


@dataclass(frozen=True)
class Texts:
    """Texts in the order they were given, none of them empty."""

    lines: tuple[str, ...] = ()
    file: str | None = None  # the file they were read from

    def __len__(self) -> int:
        return len(self.lines)

    @property
    def settings(self) -> dict[str, object]:
        """The texts themselves, or a digest of those of a file, to compare runs by."""
        if not self.lines:
            return {}
        if self.file is None:
            return {"text": list(self.lines)}
        digest = hashlib.sha256(json.dumps(self.lines).encode()).hexdigest()
        return {"texts": f"{len(self.lines)} texts, sha256 {digest[:16]}"}


def from_options(options: EmbedOptions) -> Texts:
    """The texts of the options. Raises OptionError."""
    return from_lines(options.text) if options.texts is None else from_file(options.texts)


def from_lines(texts: Sequence[str]) -> Texts:
    """The texts of the command line. Raises OptionError for an empty one."""
    for text in texts:
        if not text.strip():
            raise OptionError(
                "text",
                f"A text given with {option('text')} is empty",
                "write what is to be embedded",
            )
        if not is_utf8(text):
            raise OptionError(
                "text", f"{option('text')} {text!r} is not UTF-8", "write it as UTF-8"
            )
    return Texts(tuple(texts))


def from_file(path: str) -> Texts:
    """The texts of a file: a line each of a ``.txt``, or the column ``text``, ``caption`` or
    ``answer``, the first there is, of a ``.jsonl``, ``.csv`` or ``.tsv``.

    Blank lines are skipped. Raises OptionError that names the file, and the line where one is to
    blame.
    """
    file = TextFile("texts", path)
    if file.suffix != ".txt" and file.suffix not in TABLE_SUFFIXES:
        raise file.error(
            f"{file}: give a .txt file with one text a line, or a .jsonl, .csv or .tsv table with "
            f"the column {either(TEXT_COLUMNS)}"
        )
    texts = []
    for number, text in file.lines() if file.suffix == ".txt" else _column(file):
        file.check_utf8(number, text)
        texts.append(text)
    if not texts:
        raise file.error(f"{file} holds no text", "write one a line")
    return Texts(tuple(texts), path)


def _column(file: TextFile) -> Iterator[tuple[int, str]]:
    column = None
    for number, record in file.table():
        column = column or next((name for name in TEXT_COLUMNS if name in record), None)
        if column is None:
            raise file.error(
                f"{file.at(number)} there is no column {either(TEXT_COLUMNS)}",
                f"it has {', '.join(record)}",
            )
        text = record.get(column)
        if not isinstance(text, str) or not text.strip():
            what = "is no text" if text else "is missing or empty"
            raise file.error(f"{file.at(number)} {column} {what}", "leave such rows out")
        yield number, text
