"""Parser of the rows of a JSONL output, for the keys of their images (``occurrence_key``).

Ten million rows are read when an output is gone on with, so the usual ones are parsed many at a
time: one regular expression finds all rows of a block. That it found each line as a whole is seen
by their number, because every match begins where a line begins and ends with a newline.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Any

from blip2cli.storage.hash_set import OCCURRENCE, occurrence_key
from blip2cli.storage.text_encoding import from_utf8

# JSON as it is written here: text without control characters, numbers, lists of numbers.
_TEXT = r'"[^"\\\x00-\x1f]*+(?:\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4})[^"\\\x00-\x1f]*+)*+"'
_VALUE = r"(?:TEXT|-?[0-9][0-9.eE+-]*+|null|true|false|\[[-+0-9.eE, nul]*+\])"
# The same without lists, and so narrow that all of it is JSON.
_STRICT_VALUE = (
    r"(?:TEXT|null|true|false|"
    r"-?(?:0|[1-9][0-9]{0,99}+)(?:\.[0-9]{1,99}+)?+(?:[eE][-+]?[0-9]{1,3}+)?+)"
)
# The same text where no backslash and no control character is.
_PLAIN_TEXT = '"[^"]*+"'
_CONTROLS = bytes(range(32)).replace(b"\n", b"")


class RowParser:
    """Finds the keys of rows that have the same columns, in the same order, as the first one.

    Lines of a form that is not written here are rows, too, if they are JSON with these columns.
    Rows of texts have the name ``unnamed``.
    """

    def __init__(self, first: bytes, unnamed: str | None = None, strict: bool = False) -> None:
        """``strict``: what :meth:`keys` finds is JSON."""
        self._value = _STRICT_VALUE if strict else _VALUE
        self._columns = list(_parsed(first))
        self._unnamed = unnamed
        self._named = self._columns[:1] == ["file_name"]
        self._numbered = OCCURRENCE in self._columns
        row, plain_row = self._pattern(_TEXT), self._pattern(_PLAIN_TEXT)
        self._row = re.compile(row).fullmatch
        self._rows = re.compile(f"(?m:^){row}").findall
        self._plain_rows = re.compile(f"(?m:^){plain_row}").findall

    def key(self, line: bytes) -> str | None:
        """The key of a line with its newline; None for one that is no row."""
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            return None
        found = self._row(text) if self._named else None
        if found is not None:
            name = _unescaped(found[1])
            if name is None or not self._numbered:
                return name
            return occurrence_key(name, int(found[2]))
        row = _parsed(line)
        value = row.get("file_name") if "file_name" in self._columns else self._unnamed
        if list(row) != self._columns or not isinstance(value, str):
            return None
        return occurrence_key(from_utf8(value), row.get(OCCURRENCE))

    def keys(self, block: bytes) -> list[str] | None:
        """The keys of all lines of a block; None where :meth:`key` has to look at each."""
        if not self._named or not block.endswith(b"\n"):
            return None
        try:
            text = block.decode("utf-8")
        except UnicodeDecodeError:
            return None
        plain = b"\\" not in block and len(block.translate(None, _CONTROLS)) == len(block)
        names: Any = (self._plain_rows if plain else self._rows)(text)
        if len(names) != block.count(b"\n"):
            return None
        numbers: Sequence[str] = ()
        if self._numbered and names:
            names, numbers = zip(*names, strict=True)
        if not plain:
            names = [_unescaped(name) for name in names]
            if None in names:
                return None
        return [*map(occurrence_key, names, map(int, numbers))] if numbers else names

    def _pattern(self, text: str) -> str:
        value = self._value.replace("TEXT", text)
        forms = {"file_name": f'"({text[1:-1]})"', OCCURRENCE: "(0|[1-9][0-9]{0,17}+)"}
        columns = (
            f"{re.escape(json.dumps(name, ensure_ascii=False))}: {forms.get(name, value)}"
            for name in self._columns
        )
        return rf"\{{{', '.join(columns)}\}}\n"


def _unescaped(text: str) -> str | None:
    """The name that a JSON string holds between its quotes; None for an escape that is none."""
    if "\\" not in text:
        return text
    try:
        return from_utf8(json.loads(f'"{text}"'))
    except ValueError:
        return None


def _parsed(line: bytes) -> dict[str, object]:
    """The JSON object in a line; an empty one where there is none."""
    try:
        row = json.loads(line.decode("utf-8"))
    except (ValueError, RecursionError):
        return {}
    return row if isinstance(row, dict) else {}
