"""Reversible encoding of text, above all of file names whose bytes are not UTF-8.

Python holds such names with *lone surrogates*, U+DC80 to U+DCFF standing for the bytes 0x80 to
0xFF (PEP 383). No UTF-8 file can hold these as they are, and the escapes that JSON has for them are
an error to most of its readers.

In JSON, Parquet and CSV alike the six characters ``\\udcXX`` are stored instead, and
:func:`from_utf8` turns them back. So that this is unambiguous, a backslash that happens to stand
before such an escape in the text itself is stored as ``\\u005c``. All other text is stored
unchanged.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

_SURROGATE = r"u[dD][89a-fA-F][0-9a-fA-F]{2}"
_TO_ESCAPE = re.compile(rf"[\ud800-\udfff]|\\(?={_SURROGATE}|u005[cC])")
_ESCAPED = re.compile(rf"\\({_SURROGATE}|u005[cC](?={_SURROGATE}|u005[cC]))")
_LONE = re.compile("[\ud800-\udfff]")


def to_json(value: Any) -> bytes:
    """One JSON value as UTF-8 bytes on a single line, text readable as it is, stored as
    :func:`to_utf8` says.

    Floats keep all digits they need to be read back exactly. Raises ValueError for NaN.
    """
    text = json.dumps(value, ensure_ascii=False, allow_nan=False)
    if "\\\\u" not in text:  # nothing looks like an escape
        try:
            return text.encode()
        except UnicodeEncodeError:
            pass
    return json.dumps(deep_to_utf8(value), ensure_ascii=False, allow_nan=False).encode()


def to_utf8(text: str) -> str:
    """Make ``text`` storable where UTF-8 is demanded; :func:`from_utf8` is the inverse."""
    return _TO_ESCAPE.sub(lambda m: f"\\u{ord(m.group()):04x}", text)


def from_utf8(stored: str) -> str:
    """Return the text that :func:`to_utf8` was given."""
    return _ESCAPED.sub(lambda m: chr(int(m.group(1)[1:], 16)), stored)


def without_surrogates(stored: str) -> str:
    """``stored`` text of any JSON file, lone surrogates in it as :func:`to_utf8` writes them."""
    return _LONE.sub(lambda m: f"\\u{ord(m.group()):04x}", stored)


def deep_to_utf8(value: Any, encode: Callable[[str], str] = to_utf8) -> Any:
    """A JSON value with ``encode`` applied to all its text, names of fields included."""
    if isinstance(value, str):
        return encode(value)
    if isinstance(value, list | tuple):
        return [deep_to_utf8(item, encode) for item in value]
    if isinstance(value, dict):
        return {encode(key): deep_to_utf8(item, encode) for key, item in value.items()}
    return value


def deep_from_utf8(value: Any) -> Any:
    """A JSON value with :func:`from_utf8` applied to all its text, but not to names of fields."""
    if isinstance(value, str):
        return from_utf8(value)
    if isinstance(value, list):
        return [deep_from_utf8(item) for item in value]
    if isinstance(value, dict):
        return {key: deep_from_utf8(item) for key, item in value.items()}
    return value


def printable(text: str) -> str:
    """``text`` on one line and harmless on a terminal: control characters, line separators and
    bytes that are not UTF-8 become escapes."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
