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
from blip2cli.sources.patterns import PathPattern, has_magic
from blip2cli.sources.walk import has_image_suffix, listing


@dataclass(frozen=True)
class GlobSource:
    """The files a pattern matches."""

    text: str
    root: str  # the longest leading part without a wildcard
    pattern: PathPattern  # the rest of the pattern
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
        return cls(text=text, root=absolute(head), pattern=PathPattern(parts))

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the matches, each once."""
        # The places in the pattern that a folder may stand for travel with the folder. An explicit
        # stack: a tree may be deeper than Python's recursion limit.
        pattern = self.pattern
        top = os.fsencode(self.root)
        stack = [(top, iter([(b"", True, False)]), pattern.start)]
        while stack:
            parent, remaining, states = stack[-1]
            for name, is_folder, is_link in remaining:
                path_bytes = os.path.join(parent, name) if name else parent
                path = os.fsdecode(path_bytes)
                after = (
                    pattern.step(states, os.fsdecode(name), is_folder, is_link) if name else states
                )
                if not is_folder:
                    if pattern.end in after and (pattern.names_suffix or has_image_suffix(name)):
                        yield ImageRef(name_below(path, base), path)
                elif pattern.end in after and not pattern.names_suffix:
                    yield from tree_refs(path, base)
                elif inner := after - {pattern.end}:
                    try:
                        entries = listing(path_bytes, hidden=pattern.wants_hidden(inner))
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
