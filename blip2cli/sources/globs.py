"""A quoted glob such as ``'photos/**/*.png'``, expanded here instead of by the shell.

It is for patterns that would overflow a command line, and for ``**`` in shells that lack it.
Matches come in the order of ``walk``. A matching folder is searched like a folder source. Files
with other than image suffixes are left out unless the pattern itself ends in a suffix. Like in
a shell, ``*`` passes over names with a leading dot, and ``**`` does not go through links.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from blip2cli.errors import SourceError
from blip2cli.sources.base import ImageRef, absolute, name_below
from blip2cli.sources.folder import tree_refs, unlistable_ref
from blip2cli.sources.patterns import component_regex, has_magic
from blip2cli.sources.walk import has_image_suffix, listing


@dataclass(frozen=True)
class GlobSource:
    """The files a pattern matches."""

    text: str
    root: str  # the longest leading part without a wildcard
    parts: tuple[str, ...]  # the rest of the pattern, component by component
    unique: bool = True

    @classmethod
    def claim(cls, text: str) -> GlobSource | None:
        """Take ``text`` if it holds a wildcard. Raises SourceError when its folder is missing."""
        if not has_magic(text):
            return None
        components = text.split("/")
        first = next(i for i, part in enumerate(components) if has_magic(part))
        head = "/".join(components[:first]) or ("/" if text.startswith("/") else ".")
        if not os.path.isdir(head):
            raise SourceError(f"The pattern {text!r} starts at {head!r}, which is not a folder.")
        parts = tuple(part for part in components[first:] if part not in ("", "."))
        if ".." in parts:
            raise SourceError(f"The pattern {text!r} has '..' after a wildcard; name the folder.")
        return cls(text=text, root=absolute(head), parts=parts)

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the matches, each once."""
        # The places in ``parts`` that the names of a folder may stand for travel with the folder;
        # following all places at once gives each path once, and in order. An explicit stack: a
        # tree may be deeper than Python's recursion limit.
        top = os.fsencode(self.root)
        stack = [(top, iter([(b"", True, False)]), frozenset({0}))]
        while stack:
            parent, remaining, states = stack[-1]
            for name, is_folder, is_link in remaining:
                path_bytes = os.path.join(parent, name) if name else parent
                path = os.fsdecode(path_bytes)
                after = (
                    self._step(states, os.fsdecode(name), is_folder, is_link) if name else states
                )
                if not is_folder:
                    if self._end in after and (self._names_suffix or has_image_suffix(name)):
                        yield ImageRef(name_below(path, base), path)
                elif self._end in after and not self._names_suffix:
                    yield from tree_refs(path, base)
                elif inner := after - {self._end}:
                    try:
                        entries = listing(path_bytes, hidden=self._wants_hidden(inner))
                    except OSError as error:
                        yield unlistable_ref(path, error, base)
                        continue
                    stack.append((path_bytes, iter(entries), inner))
                    break
            else:
                stack.pop()

    def nothing(self) -> str:
        """The sentence for a pattern without a match."""
        return f"No image matches the pattern {self.text!r}; check it, or name a folder instead."

    @property
    def _names_suffix(self) -> bool:
        suffix = os.path.splitext(self.parts[-1])[1]
        return len(suffix) > 1 and not has_magic(suffix)

    def _wants_hidden(self, states: frozenset[int]) -> bool:
        return any(self.parts[s].startswith(".") for s in self._closure(states))

    @property
    def _end(self) -> int:
        return len(self.parts)

    def _closure(self, states: frozenset[int]) -> set[int]:
        """Add the places reached by letting ``**`` stand for no folder at all."""
        reached = set(states)
        for state in sorted(states):
            while state < self._end - 1 and self.parts[state] == "**":
                state += 1
                reached.add(state)
        return reached

    def _step(
        self, states: frozenset[int], name: str, is_folder: bool, is_link: bool
    ) -> frozenset[int]:
        """The places after one more component ``name``; empty when nothing can match."""
        after: set[int] = set()
        for state in self._closure(states):
            part = self.parts[state]
            if part == "**":
                if name.startswith("."):
                    continue
                if state == self._end - 1:  # a last "**" takes every file below
                    if not is_folder:
                        after.add(self._end)
                    elif not is_link:
                        after.add(state)
                elif is_folder and not is_link:
                    after.add(state)
            elif (part.startswith(".") or not name.startswith(".")) and component_regex(part).match(
                name
            ):
                after.add(state + 1)
        return frozenset(after)
