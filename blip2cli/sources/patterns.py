"""Glob patterns, the same wherever the tool takes one.

``*`` and ``?`` stay within one path component, ``**`` as a whole component stands for any number
of folders (also none), ``[abc]``, ``[a-z]`` and ``[!abc]`` choose characters. Matching is by case.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache

_MAGIC = re.compile(r"[*?[]")


def has_magic(text: str) -> bool:
    """True when ``text`` holds a character that makes it a pattern."""
    return _MAGIC.search(text) is not None


@lru_cache(maxsize=512)
def component_regex(pattern: str) -> re.Pattern[str]:
    """Compile one path component; matches whole names only."""
    out: list[str] = []
    i = 0
    while i < len(pattern):
        char = pattern[i]
        i += 1
        if char == "*":
            out.append("[^/]*")
        elif char == "?":
            out.append("[^/]")
        elif char == "[":
            # A "]" right after "[" or "[!" is an ordinary member; no closing one: a plain "[".
            start = i + 1 if pattern[i : i + 1] in ("!", "^") else i
            end = pattern.find("]", start + 1)
            if end < 0:
                out.append(r"\[")
            else:
                out.append(_character_class(pattern[start:end], negated=start > i))
                i = end + 1
        else:
            out.append(re.escape(char))
    return re.compile("(?s:" + "".join(out) + r")\Z")


def _character_class(body: str, negated: bool) -> str:
    items: list[str] = []
    i = 0
    while i < len(body):
        if i + 2 < len(body) and body[i + 1] == "-":
            if body[i] <= body[i + 2]:
                items.append(f"{re.escape(body[i])}-{re.escape(body[i + 2])}")
            i += 3
        else:
            items.append(re.escape(body[i]))
            i += 1
    if not items:  # only ranges that run backwards: nothing matches, or everything
        return "[^/]" if negated else "(?!)"
    return f"[^/{''.join(items)}]" if negated else f"(?!/)[{''.join(items)}]"


@lru_cache(maxsize=512)
def name_regex(pattern: str) -> re.Pattern[str]:
    """Compile a selection pattern (``--include``, ``--exclude``) for whole file names.

    A pattern without a slash is tried on the last component, so ``*.png`` means every PNG; one
    with a slash is tried on the whole name; one that ends in a slash means all in that folder.
    """
    if pattern.endswith("/"):
        pattern += "**"
    parts = pattern.lstrip("/").split("/")
    if len(parts) == 1 and not pattern.startswith("/") and parts[0] != "**":
        parts = ["**", *parts]
    regex = ""
    for number, part in enumerate(parts):
        last = number == len(parts) - 1
        if part == "**":
            regex += "(?s:.*)" if last else "(?s:(?:[^/]+/)*)"
        else:
            regex += component_regex(part).pattern.removesuffix(r"\Z") + ("" if last else "/")
    return re.compile(regex + r"\Z")


class Selection:
    """``--include`` and ``--exclude``: a name passes when an include (or none is given) matches
    and no exclude does."""

    def __init__(self, include: Iterable[str], exclude: Iterable[str]) -> None:
        self.include = tuple(include)
        self.exclude = tuple(exclude)
        self._include = [name_regex(p) for p in self.include]
        self._exclude = [name_regex(p) for p in self.exclude]

    def takes(self, file_name: str, failed: bool = False) -> bool:
        """True when the name is wanted. A failure found while listing (``failed``) may stand for
        a whole folder, so only an exclude silences it."""
        if self._include and not failed and not any(r.match(file_name) for r in self._include):
            return False
        return not any(r.match(file_name) for r in self._exclude)

    def __str__(self) -> str:
        parts = [f"--include {p!r}" for p in self.include]
        parts += [f"--exclude {p!r}" for p in self.exclude]
        return " ".join(parts)
