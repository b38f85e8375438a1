"""Text files and tables that options name (questions, choices, texts), read row by row."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

from blip2cli.errors import OptionError, SourceError, option
from blip2cli.sources.csv_rows import csv_dialect, csv_records
from blip2cli.sources.records import BadRow, Record, json_records, text_records, unpacked_suffix

_DELIMITERS = {".csv": ",", ".tsv": "\t"}
TABLE_SUFFIXES = (".jsonl", *_DELIMITERS)


class TextFile:
    """The file ``path`` given with the option ``field``. Every error is an OptionError."""

    def __init__(self, field: str, path: str) -> None:
        self.field = field
        self.path = path
        self.suffix = unpacked_suffix(path)

    def __str__(self) -> str:
        return f"{option(self.field)} {self.path}"

    def at(self, line: int) -> str:
        """The place of a line, counted from 1, for messages."""
        return f"{self}, line {line}:"

    def error(self, problem: str, remedy: str = "") -> OptionError:
        """An error that blames the option."""
        return OptionError(self.field, problem, remedy)

    def lines(self) -> Iterator[tuple[int, str]]:
        """Number and text of every line that is not blank."""
        with self._errors():
            for number, record in self._sound(text_records(self.path)):
                line = str(record["file_name"])
                if line.strip():
                    yield number, line

    def table(self) -> Iterator[tuple[int, Mapping[str, object]]]:
        """Line number and cells, by column, of every row of a ``.jsonl``, ``.csv`` or ``.tsv``."""
        with self._errors():
            if self.suffix == ".jsonl":
                yield from self._sound(json_records(self.path))
            else:
                dialect = csv_dialect(self.path, _DELIMITERS[self.suffix])
                yield from self._sound(csv_records(self.path, dialect))

    def columns(self) -> list[str] | None:
        """The columns that the first line of a ``.csv`` or ``.tsv`` names; None for ``.jsonl``."""
        if self.suffix == ".jsonl":
            return None
        with self._errors():
            return list(csv_dialect(self.path, _DELIMITERS[self.suffix]).columns)

    def check_utf8(self, line: int, text: str) -> None:
        """Raise OptionError where ``text`` holds bytes that are not UTF-8."""
        if not is_utf8(text):
            raise self.error(f"{self.at(line)} this is not UTF-8", "save the file as UTF-8")

    def _sound(self, records: Iterable[Record]) -> Iterator[tuple[int, Mapping[str, object]]]:
        """The rows; a bad one is an error."""
        for number, row in records:
            if isinstance(row, BadRow):
                raise self.error(f"{self.at(number)} {row.problem}", row.remedy)
            yield number, row

    @contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except SourceError as error:
            raise self.error(f"{option(self.field)}: {error.problem}", error.remedy) from None
        except FileNotFoundError:
            raise self.error(f"{self}: there is no such file") from None
        except OSError as error:
            raise self.error(f"{self} cannot be read: {error.strerror or error}") from None


def is_utf8(text: str) -> bool:
    """Whether ``text`` holds no lone surrogates, which stand for bytes that are not UTF-8."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
