"""Values as the page takes them: plain JSON, valid Unicode, nothing that names a machine."""

from __future__ import annotations

import math
import os
import re
from typing import Any

from blip2cli.storage.secrets import hide_secrets
from blip2cli.storage.text_encoding import to_utf8

_EXACT = 1 << 53  # integers up to here are exact in JavaScript
_DECIMALS = 6
# Absolute paths: in quotes with whatever they hold, else up to a blank. A URL's are none.
_QUOTED = re.compile(r"(['\"])(/[^'\"]*)\1")
_BARE = re.compile(r"(?<![\w.:/~-])/(?:[^\s/'\",;]+/)+(?=[^\s/])")


def plain(value: Any) -> Any:
    """``value`` as JSON that any browser takes; what JSON has no word for becomes a text."""
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return to_utf8(value)
    if isinstance(value, int):
        return value if abs(value) <= _EXACT else str(value)
    if isinstance(value, float):
        return number(value)
    if isinstance(value, dict):
        return {to_utf8(str(key)): plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [plain(one) for one in value]
    return to_utf8(str(value))


def number(value: Any) -> float | None:
    """A finite number, rounded; None for anything else."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return round(float(value), _DECIMALS) if math.isfinite(value) else None


def text_or_none(value: Any) -> str | None:
    """A text, or a number as text; None for null."""
    return None if value is None else to_utf8(str(value))


def public_text(text: str) -> str:
    """A sentence without secrets, and with only the last name of absolute paths."""
    text = _QUOTED.sub(lambda m: m[1] + os.path.basename(m[2].rstrip("/")) + m[1], text)
    return to_utf8(hide_secrets(_BARE.sub("", text)))


def public_path(text: str) -> str:
    """A path, a URL or the name of a model, of which an absolute one keeps its last name only."""
    if text.startswith(("/", "~", "..")):
        text = os.path.basename(text.rstrip("/"))
    return to_utf8(hide_secrets(text))
