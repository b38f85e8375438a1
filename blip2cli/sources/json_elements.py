"""Elements of the lists in a JSON file, one after the other, whatever the size of the file."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator
from typing import IO, Any

from blip2cli.errors import SourceError
from blip2cli.sources.records import PACKED_ERRORS, open_text

_PIECE = 1 << 20  # characters that are read at a time
_BLANKS = re.compile(r"[ \t\r\n]*")
_IN_NUMBERS = ("", *"0123456789.eE+-")
_decode = json.JSONDecoder().raw_decode


def json_elements(field: str, path: str, piece: int = _PIECE) -> Iterator[tuple[str, Any]]:
    """Yield the elements of the lists of an object, with the lists' names, or those of a list.

    What is no list is passed over. ``path`` may be packed, or a URL, and is read by ``piece``
    characters. Raises SourceError, blaming ``field``.
    """
    try:
        with open_text(path) as file, io.TextIOWrapper(file, "utf-8") as text:
            yield from _Window(text, piece).elements()
    except (ValueError, RecursionError, *PACKED_ERRORS) as error:
        first = str(error).splitlines()[0]
        problem = f"{path!r} cannot be read as JSON ({first})"
        raise SourceError(field, problem, "check it") from None
    except SourceError as error:
        raise SourceError(field, error.problem, error.remedy) from None
    except OSError as error:
        problem = f"{path!r} cannot be read: {error.strerror or error}"
        raise SourceError(field, problem) from None


class _Window:
    """The part of a file that is parsed at present."""

    def __init__(self, file: IO[str], piece: int) -> None:
        self._file, self._piece = file, piece
        self._text, self._at, self._ended = "", 0, False

    def elements(self) -> Iterator[tuple[str, Any]]:
        """Yield name and element; see ``json_elements``."""
        opening = self._next()
        if opening == "[":
            yield from self._list("")
        elif opening == "{":
            closed = self._next("}")
            while closed != "}":
                name = self._value()
                self._expect(":")
                if self._next("[") == "[":
                    yield from self._list(str(name))
                else:
                    self._value()
                closed = self._expect(",}")
        else:
            raise ValueError("it begins neither with an object nor with a list")
        if self._peek():
            raise ValueError("there is more behind its end")

    def _list(self, name: str) -> Iterator[tuple[str, Any]]:
        closed = self._next("]")
        while closed != "]":
            yield name, self._value()
            closed = self._expect(",]")

    def _value(self) -> Any:
        self._peek()
        while True:
            try:
                value, end = _decode(self._text, self._at)
            except ValueError:
                if self._ended:
                    raise
            else:
                # A number may go on behind the window.
                if self._ended or self._text[end : end + 1] not in _IN_NUMBERS:
                    self._at = end
                    return value
            self._more(len(self._text) - self._at)

    def _next(self, wanted: str = "[{") -> str:
        """The next character, passed over if it is one of ``wanted``."""
        character = self._peek()
        if character and character in wanted:
            self._at += 1
        return character

    def _expect(self, wanted: str) -> str:
        character = self._next(wanted)
        if not character or character not in wanted:
            raise ValueError(f"{wanted[0]!r} is missing")
        return character

    def _peek(self) -> str:
        """The next character that is no blank; "" at the end."""
        while True:
            self._at = _BLANKS.match(self._text, self._at).end()  # type: ignore[union-attr]
            if self._at < len(self._text) or self._ended:
                return self._text[self._at : self._at + 1]
            self._more(0)

    def _more(self, atleast: int) -> None:
        """Read on, as much again as could not be parsed so far."""
        new = self._file.read(max(self._piece, atleast))
        self._ended = not new
        self._text, self._at = self._text[self._at :] + new, 0
