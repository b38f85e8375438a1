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
from typing import TypeGuard

from blip2cli.errors import SourceError, UserError
from blip2cli.options import SourceOptions
from blip2cli.sources.base import FailedRef, ImageRef, absolute, name_below
from blip2cli.sources.carried_columns import CarriedColumn, columns_of, no_columns
from blip2cli.sources.containers import open_container
from blip2cli.sources.patterns import PathPattern, has_magic
from blip2cli.sources.readers.folder import tree_refs, unlistable_ref
from blip2cli.sources.readers.manifest import ManifestSource
from blip2cli.sources.walk import has_image_suffix, listing
from blip2cli.storage.hash_set import HashSet


@dataclass(frozen=True)
class MatchedFolder:
    """A folder a pattern matches."""

    path: str


@dataclass(frozen=True)
class GlobSource:
    """The files a pattern matches."""

    text: str
    root: str  # the longest leading part without a wildcard
    pattern: PathPattern  # the rest of the pattern
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
        return cls(text=text, root=absolute(head), pattern=PathPattern(parts), options=options)

    @property
    def unique(self) -> bool:
        """Matches come once; manifests that may name any file may name one twice."""
        return not (self.pattern.names_suffix and self.options.absolute_paths)

    def carried_columns(self) -> tuple[CarriedColumn, ...]:
        """The columns of the first match. Raises OptionError when it has none."""
        first = next((ref for ref in self._matches(self.root) if _is_file(ref)), None)
        source = None if first is None else open_container(first.path, self.options)
        if source is None:
            raise no_columns(self.text, self.options.keep[0])
        return columns_of([source], self.options.keep)

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the matches, or the images in them, each once."""
        seen = HashSet()
        first = True
        for found in self._matches(base):
            if isinstance(found, MatchedFolder):
                yield from self._tree(found.path, base)
            elif self.pattern.names_suffix and _is_file(found):
                yield from self._inside(found, base, seen, first)
                first = False
            else:
                yield found

    def _inside(self, ref: ImageRef, base: str, seen: HashSet, first: bool) -> Iterator[ImageRef]:
        """The images in the file that ``ref`` stands for, which may be an image itself."""
        try:
            source = open_container(ref.path, self.options)
        except UserError as error:
            if first:
                raise
            carried = (None,) * len(self.options.keep)
            yield FailedRef(
                ref.file_name, ref.path, "unreadable_source", str(error), carried=carried
            )
            return
        if source is None:
            yield ref
        elif isinstance(source, ManifestSource):
            yield from source.refs(base, seen)
        else:
            yield from source.refs(base)

    def _tree(self, path: str, base: str) -> Iterator[ImageRef]:
        """The images below a matching folder."""
        return tree_refs(path, base)

    def _matches(self, base: str) -> Iterator[ImageRef | MatchedFolder]:
        """Yield matching files and folders, each once and in order."""
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
                    yield MatchedFolder(path)
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
        if next(self._matches(self.root), None) is not None and self.pattern.names_suffix:
            return f"The files that match the pattern {self.text!r} hold no image."
        return f"No image matches the pattern {self.text!r}; check it, or name a folder instead."


def _is_file(found: ImageRef | MatchedFolder) -> TypeGuard[ImageRef]:
    return not isinstance(found, (MatchedFolder, FailedRef))
