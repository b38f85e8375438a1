"""Glob patterns, the same wherever the tool takes one.

``*`` and ``?`` stay within one path component, ``**`` as a whole component stands for any number
of folders (also none), ``[abc]``, ``[a-z]`` and ``[!abc]`` choose characters. Matching is by case.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import lru_cache

from blip2cli.errors import option

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
    """Compile a selection pattern (options ``include``, ``exclude``) for whole file names.

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


@dataclass(frozen=True)
class PathPattern:
    """A pattern for paths, matched component by component while a tree is walked.

    ``states`` are the indices in ``parts`` that a folder may stand for, 0 where the walk begins.
    Following all of them at once gives each path once, and in the order of the walk. Like in a
    shell, ``*`` passes over names with a leading dot, and ``**`` does not go through links.
    """

    parts: tuple[str, ...]

    @property
    def end(self) -> int:
        """The state of a path that matches as a whole."""
        return len(self.parts)

    @property
    def names_suffix(self) -> bool:
        """True when the pattern itself names a suffix."""
        suffix = os.path.splitext(self.parts[-1])[1]
        return len(suffix) > 1 and not has_magic(suffix)

    def wants_hidden(self, states: frozenset[int]) -> bool:
        """True when a name with a leading dot could match next."""
        return any(self.parts[s].startswith(".") for s in self._closure(states))

    def step(
        self, states: frozenset[int], name: str, is_folder: bool, is_link: bool = False
    ) -> frozenset[int]:
        """The states after one more component ``name``; empty when nothing can match."""
        after: set[int] = set()
        for state in self._closure(states):
            part = self.parts[state]
            if part == "**":
                if name.startswith("."):
                    continue
                if state == self.end - 1:  # a last "**" takes every file below
                    if not is_folder:
                        after.add(self.end)
                    elif not is_link:
                        after.add(state)
                elif is_folder and not is_link:
                    after.add(state)
            elif (part.startswith(".") or not name.startswith(".")) and component_regex(part).match(
                name
            ):
                after.add(state + 1)
        return frozenset(after)

    def _closure(self, states: frozenset[int]) -> set[int]:
        """Add the states reached by letting ``**`` stand for no folder at all."""
        reached = set(states)
        for state in sorted(states):
            while state < self.end - 1 and self.parts[state] == "**":
                state += 1
                reached.add(state)
        return reached


class Selection:
    """The options ``include`` and ``exclude``: a name passes when an include matches, or none is
    given, and no exclude does."""

    def __init__(self, include: Iterable[str], exclude: Iterable[str]) -> None:
        self.include = tuple(include)
        self.exclude = tuple(exclude)
        self._include = [name_regex(p) for p in self.include]
        self._exclude = [name_regex(p) for p in self.exclude]

    def takes(self, file_name: str, failed: bool = False) -> bool:
        """True when the name is selected. A failure found while listing (``failed``) may stand for
        a whole folder, so only an exclude silences it."""
        if self._include and not failed and not any(r.match(file_name) for r in self._include):
            return False
        return not any(r.match(file_name) for r in self._exclude)

    def __str__(self) -> str:
        given = [f"{option('include')} {pattern!r}" for pattern in self.include]
        given += [f"{option('exclude')} {pattern!r}" for pattern in self.exclude]
        return " ".join(given)
