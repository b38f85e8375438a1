"""A quoted glob such as ``'photos/**/*.png'``, expanded here instead of by the shell.

It is for patterns that would overflow a command line, and for ``**`` in shells that lack it.
Matches come in the order of ``walk``. A matching folder is searched like a folder source. Files
with other than image suffixes are left out unless the pattern itself ends in a suffix. Like in
a shell, ``*`` passes over names with a leading dot, and ``**`` does not go through links.

Where the pattern ends in the suffix of manifests, tables or archives (``'shards/*.tar'``), the
images in each match are read, one match after the other. The first must be what its suffix says; a
later one that is not is a failed image (``unreadable_source``), since work has begun by then.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from blip2cli.errors import SourceError, UserError
from blip2cli.options import SourceOptions
from blip2cli.sources.base import FailedRef, ImageRef, absolute, name_below
from blip2cli.sources.containers import open_container
from blip2cli.sources.folder import tree_refs, unlistable_ref
from blip2cli.sources.kept import KeptColumn, columns_of, no_columns
from blip2cli.sources.manifest import ManifestSource
from blip2cli.sources.nameset import NameSet
from blip2cli.sources.patterns import component_regex, has_magic
from blip2cli.sources.walk import Unlistable, has_image_suffix, listing


@dataclass(frozen=True)
class _Folder:
    """A folder a pattern matches."""

    path: str


@dataclass(frozen=True)
class GlobSource:
    """The files a pattern matches."""

    text: str
    root: str  # the longest leading part without a wildcard
    parts: tuple[str, ...]  # the rest of the pattern, component by component
    options: SourceOptions

    @classmethod
    def claim(cls, text: str, options: SourceOptions) -> GlobSource | None:
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
        return cls(text=text, root=absolute(head), parts=parts, options=options)

    @property
    def unique(self) -> bool:
        """Matches come once; manifests that may name any file may name one twice."""
        return not (self._names_suffix and self.options.absolute_paths)

    def kept_columns(self) -> tuple[KeptColumn, ...]:
        """The columns of the first match. Raises OptionError when it has none."""
        path = next((found for found in self._matches() if isinstance(found, str)), None)
        source = None if path is None else open_container(path, self.options)
        if source is None:
            raise no_columns(self.text, self.options.keep[0])
        return columns_of([source], self.options.keep)

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the matches, or the images in them, each once."""
        seen = NameSet()
        first = True
        for found in self._matches():
            if isinstance(found, _Folder):
                yield from tree_refs(found.path, base)
            elif isinstance(found, Unlistable):
                yield unlistable_ref(found.path, found.error, base)
            elif self._names_suffix:
                yield from self._inside(found, base, seen, first)
                first = False
            else:
                yield ImageRef(name_below(found, base), found)

    def _inside(self, path: str, base: str, seen: NameSet, first: bool) -> Iterator[ImageRef]:
        """The images in the file at ``path``, which may be an image itself."""
        try:
            source = open_container(path, self.options)
        except UserError as error:
            if first:
                raise
            name, kept = name_below(path, base), (None,) * len(self.options.keep)
            yield FailedRef(name, path, "unreadable_source", str(error), kept=kept)
            return
        if source is None:
            yield ImageRef(name_below(path, base), path)
        elif isinstance(source, ManifestSource):
            yield from source.refs(base, seen)
        else:
            yield from source.refs(base)

    def _matches(self) -> Iterator[str | _Folder | Unlistable]:
        """Yield the paths of matching files, and matching folders, each once and in order."""
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
                        yield path
                elif self._end in after and not self._names_suffix:
                    yield _Folder(path)
                elif inner := after - {self._end}:
                    try:
                        entries = listing(path_bytes, hidden=self._wants_hidden(inner))
                    except OSError as error:
                        yield Unlistable(path, error)
                        continue
                    stack.append((path_bytes, iter(entries), inner))
                    break
            else:
                stack.pop()

    def nothing(self) -> str:
        """The sentence for a pattern without a match."""
        if next(self._matches(), None) is not None and self._names_suffix:
            return f"The files that match the pattern {self.text!r} hold no image."
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
