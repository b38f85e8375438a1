"""Rows of text manifests, read one by one: lists (``.txt``) and JSON Lines; see ``csv_rows`` for
tables and ``json_elements`` for JSON. Each may be packed by gzip or xz.

Text is UTF-8, with or without a byte order mark; bytes that are not UTF-8 are held as lone
surrogates, as in all file names. Every reader yields the number of a row's first line, counted
from 1, and the row, or a ``BadRow`` that says why it cannot be read. They raise SourceError that
names the file where all of it is wrong, and OSError.

A line, and a row of a table, is at most ``MAX_LINE_BYTES`` long. As JSON it may take 25 times as
much memory, so a manifest costs 400 MB at most, and 800 MB
where columns are carried.
"""

from __future__ import annotations

import codecs
import gzip
import json
import lzma
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from blip2cli.errors import SourceError
from blip2cli.sources.members import MAX_NAME
from blip2cli.storage.opening import open_binary

MAX_LINE_BYTES = 1 << 24  # a longer line is no line of a table, and would fill the memory
_BLOCK = 1 << 19  # bytes of lines that are read together
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
# Suffix, name, and what unpacks an open file.
_PACKED: dict[str, tuple[str, Callable[[BinaryIO], Any]]] = {
    ".gz": ("gzip", gzip.open),
    ".xz": ("xz", lzma.open),
}
# Of a packed file that breaks off, or is damaged.
PACKED_ERRORS = (EOFError, zlib.error, gzip.BadGzipFile, lzma.LZMAError)


@dataclass(frozen=True)
class BadRow:
    """A row that cannot be read, as problem and remedy."""

    problem: str
    remedy: str = ""


Record = tuple[int, Mapping[str, object] | BadRow]


def text_records(location: str, line_bytes: int = MAX_LINE_BYTES) -> Iterator[Record]:
    """A list of paths, one a line, taken as they come: the column is called ``file_name``.

    Lines may end in CR LF; empty ones are passed over.
    """
    return _paths(_lines(location, line_bytes))


def text_blocks(
    location: str, line_bytes: int = MAX_LINE_BYTES, block_bytes: int = _BLOCK
) -> Iterator[tuple[list[str], list[Record]]]:
    """A list of paths as ``text_records`` reads it, many at once; it is not gzipped.

    They come as names, without records, where all of them are names as they are: relative, on this
    computer, and without anything that is to be normalised.
    """
    number = 0
    with open_text(location) as file:
        reader = LineReader(file, line_bytes)
        start = file.tell()
        while block := file.read(block_bytes) + file.readline(block_bytes):
            end = file.tell()
            names = _plain_names(block)
            if names is not None:
                yield names, []
                number += len(names)
            else:
                file.seek(start)
                lines = []
                while file.tell() < end and (line := reader.next()):
                    lines.append(line if isinstance(line, BadRow) else _decoded(line))
                yield [], [*_paths(enumerate(lines, number + 1))]
                number += len(lines)
            start = file.tell()


def _plain_names(block: bytes) -> list[str] | None:
    """The lines of a block, if each is a name as it is, see ``text_blocks``.

    No name begins with ``/``, ``.`` or ``~``, ends with ``/``, or holds ``//``, ``/.`` or ``/~``;
    so none is a URL or ``..``.
    """
    import numpy as np  # for who reads lists in blocks

    if not block.endswith(b"\n") or b"\r" in block or b"\0" in block:
        return None
    text = np.frombuffer(b"\n" + block, np.uint8)
    ends = (text == ord("\n")) | (text == ord("/"))
    if (ends[:-1] & (ends | (text == ord(".")) | (text == ord("~")))[1:]).any():
        return None
    try:
        names = block[:-1].decode("utf-8").split("\n")
    except UnicodeDecodeError:
        return None
    return names if max(map(len, names)) <= MAX_NAME else None


def _paths(lines: Iterable[tuple[int, str | BadRow]]) -> Iterator[Record]:
    for number, line in lines:
        if isinstance(line, BadRow):
            yield number, line
            continue
        if "\0" in line:
            yield number, BadRow("it holds a NUL byte", "a .txt manifest has a path a line")
        elif line:
            yield number, {"file_name": line}


def json_records(location: str) -> Iterator[Record]:
    """JSON Lines: an object a line; empty lines are passed over."""
    for number, line in _lines(location):
        if isinstance(line, BadRow):
            yield number, line
            continue
        if not line.strip():
            continue
        try:
            yield number, json_object(line)
        except ValueError as error:
            yield number, BadRow(str(error))


def json_object(line: str) -> dict[str, Any]:
    """The object in a line of JSON Lines. Raises ValueError that says what is wrong with it."""
    try:
        value = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at column {error.colno})") from None
    except (ValueError, RecursionError) as error:  # a number of too many digits, deep nesting
        raise ValueError(f"not to be read as JSON ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"expected an object, found {line.strip()[:40]}")
    return value


def broken(location: str, line: int, what: str, remedy: str = "") -> SourceError:
    """The error for a line that cannot be read."""
    return SourceError(None, f"{location!r}, line {line}: {what}", remedy)


@contextmanager
def open_text(location: str) -> Iterator[BinaryIO]:
    """The bytes of a text file, behind its byte order mark; it is unpacked where it is packed."""
    with closing(open_binary(location)) as raw:
        packed, unpack = _PACKED.get(location.lower()[-3:], ("", None))
        file = raw if unpack is None else cast("BinaryIO", unpack(raw))
        try:
            start = file.read(3)
        except PACKED_ERRORS as error:
            problem = f"{location!r} is a damaged {packed} file ({error})"
            raise SourceError(None, problem) from None
        if start[:2] in _UTF16 or start[:1] == b"\0" or start[1:2] == b"\0":
            raise SourceError(None, f"{location!r} is UTF-16 text", "save it as UTF-8")
        if start != codecs.BOM_UTF8:
            file.seek(0)
        yield file


def is_packed(location: str) -> bool:
    """Whether a text file is unpacked while it is read."""
    return location.lower()[-3:] in _PACKED


def unpacked_suffix(location: str) -> str:
    """The suffix that tells the kind of a text file, in lower case, without ``.gz`` or ``.xz``."""
    name = (location[:-3] if is_packed(location) else location).lower()
    return name[name.rfind(".") :] if "." in name else ""


class LineReader:
    """The lines of an open text file one by one, none longer than ``line_bytes``."""

    def __init__(self, file: BinaryIO, line_bytes: int = MAX_LINE_BYTES) -> None:
        self._file = file
        self._line_bytes = line_bytes
        self._ended = False

    def next(self) -> bytes | BadRow:
        """The next line with its end; empty behind the last one."""
        if self._ended:
            return b""
        try:
            line = self._file.readline(self._line_bytes)
            if len(line) < self._line_bytes or line.endswith(b"\n"):
                return line
            while line and not line.endswith(b"\n"):
                line = self._file.readline(self._line_bytes)
            return BadRow("a line of over 16 MiB")
        except PACKED_ERRORS as error:
            self._ended = True
            return BadRow(f"the packed stream breaks off here ({error}); what follows is lost")


def _decoded(line: bytes) -> str:
    return line.removesuffix(b"\n").removesuffix(b"\r").decode("utf-8", "surrogateescape")


def _lines(location: str, line_bytes: int = MAX_LINE_BYTES) -> Iterator[tuple[int, str | BadRow]]:
    with open_text(location) as file:
        reader, number = LineReader(file, line_bytes), 0
        while line := reader.next():
            number += 1
            if isinstance(line, BadRow):
                yield number, line
                continue
            line = line.removesuffix(b"\n").removesuffix(b"\r")
            yield number, line.decode("utf-8", "surrogateescape")
