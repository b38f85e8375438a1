"""A quoted glob such as ``'photos/**/*.png'``, expanded here instead of by the shell.

It is for patterns that would overflow a command line, and for ``**`` in shells that lack it.
Matches come in the order of ``walk``. A matching folder is searched like a folder source. Files
with other than image suffixes are left out unless the pattern itself ends in a suffix. Like in
a shell, ``*`` passes over names with a leading dot, and ``**`` does not go through links.

Where the pattern ends in the suffix of manifests, tables or archives (``'shards/*.tar'``), the
images in each match are read, one match after the other. The first must be what its suffix says; a
later one that is not is a failed image (``unreadable_source``), since the run has started by then.
Columns to be carried that the first match has and a later one has not are null there.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING, ClassVar, TypeGuard

from blip2cli.errors import OptionError, SourceError, UserError, option
from blip2cli.sources.base import FailedRef, ImageRef, Source, absolute
from blip2cli.sources.carried_columns import CarriedColumn, ColumnedSource, columns_of, no_columns
from blip2cli.sources.image_suffixes import IMAGE_SUFFIXES
from blip2cli.sources.local_tree import LocalTree
from blip2cli.sources.patterns import PathPattern, has_magic
from blip2cli.sources.readers import find_reader, open_container
from blip2cli.sources.readers.manifest import ManifestSource
from blip2cli.sources.walk import MatchedFolder, PatternRules, Tree, unlistable_ref, walk
from blip2cli.storage.hash_set import HashSet
from blip2cli.storage.opening import is_remote
from blip2cli.storage.remote_errors import RemoteError

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions


TYPED_MATCHES = 100  # whose columns are looked at for their types


@dataclass(frozen=True)
class GlobSource(ColumnedSource):
    """The files a pattern matches; ``root`` is its longest leading part without a wildcard."""

    pattern: PathPattern  # the rest of the pattern
    options: SourceOptions
    tree: Tree

    has_rows: ClassVar[bool] = True
    must_match: ClassVar[bool] = True

    @classmethod
    def of(
        cls, text: str, root: str, pattern: PathPattern, options: SourceOptions, tree: Tree
    ) -> GlobSource:
        """Matches come once; manifests that may name any file may name one twice."""
        unique = not (pattern.names_suffix and options.absolute_paths)
        return cls(text, root, pattern, options, tree, unique=unique)

    @property
    def by_name(self) -> bool:
        """Of matches that are images; those inside of archives and manifests have other orders."""
        suffix = os.path.splitext(self.pattern.parts[-1])[1].lower()
        return suffix in IMAGE_SUFFIXES or not self.pattern.names_suffix

    def carried_columns(self) -> tuple[CarriedColumn, ...]:
        """The columns, with types that hold the values of the first matches. Raises OptionError
        when the first has none."""
        files = (ref for ref in self._matches(self.root) if _is_file(ref))
        sources: list[Source] = []
        for ref in islice(files, 1 if is_remote(self.root) else TYPED_MATCHES):
            try:
                source = open_container(ref.path, self.options)
            except UserError:
                if not sources:
                    raise
                continue  # a failure when its turn comes
            if source is None:
                break
            sources.append(source)
        if not sources:
            raise no_columns(self.text, self.options.keep[0])
        return columns_of(sources, self.options.keep)

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the matches, or the images in them, each once."""
        seen = HashSet()
        first = True
        for found in self._matches(base):
            if isinstance(found, MatchedFolder):
                try:
                    yield from self.tree.images_below(found.path, base)
                except OSError as error:
                    yield unlistable_ref(found.path, error, base)
            elif self.pattern.names_suffix and _is_file(found):
                yield from self._inside(found, base, seen, first)
                first = False
            else:
                yield found

    def content_files(self) -> Iterator[str]:
        """The archives and tables among the matches; manifests only if columns are carried."""
        if is_remote(self.root) or not self.pattern.names_suffix:
            return
        matches = replace(self, tree=LocalTree())._matches(self.root)  # which counts nothing
        for ref in filter(_is_file, matches):
            reader = find_reader(ref.path)
            if reader is None or not reader.container:
                return  # a pattern of images
            if reader.name != "manifest" or self.options.keep:
                yield ref.path

    def no_images(self) -> SourceError:
        if next(self._matches(self.root), None) is not None and self.pattern.names_suffix:
            return SourceError(
                "sources", f"The files that match the pattern {self.text!r} hold no image"
            )
        return SourceError(
            "sources",
            f"No image matches the pattern {self.text!r}",
            "check it, or name a folder instead",
        )

    def _inside(self, ref: ImageRef, base: str, seen: HashSet, first: bool) -> Iterator[ImageRef]:
        """The images in the file that ``ref`` stands for, which may be an image itself."""
        try:
            source = self._open(ref.path, first)
            first = False
            if source is None:
                yield ref
            elif isinstance(source, ManifestSource):
                yield from source.refs(base, seen)
            else:
                yield from source.refs(base)
        except UserError as error:
            if first:
                raise
            carried = (None,) * len(self.options.keep)
            message = error.sentence(option)
            yield FailedRef(ref.file_name, ref.path, "unreadable_source", message, carried=carried)

    def _open(self, path: str, first: bool) -> Source | None:
        """The table or archive at ``path``; columns that the first match has and it has not are
        null."""
        try:
            return open_container(path, self.options)
        except OptionError as error:
            if first or error.field != "keep":
                raise
        found: dict[str, CarriedColumn] = {}
        for name in self.options.keep:
            with suppress(OptionError):
                one = open_container(path, replace(self.options, keep=(name,)))
                for column in getattr(one, "columns", ()):
                    found[name] = column
        source = open_container(path, replace(self.options, keep=tuple(found)))
        if not isinstance(source, ColumnedSource):
            return source
        every = (found.get(name, CarriedColumn(name, "string")) for name in self.options.keep)
        return replace(source, columns=tuple(every))

    def _matches(self, base: str) -> Iterator[ImageRef | MatchedFolder]:
        """Yield matching files and folders, each once and in order."""
        rules = PatternRules(self.pattern, self.tree.decode, others=self.tree.others)
        try:
            yield from walk(self.tree, self.root, rules, base)
        except RemoteError:
            raise
        except OSError as error:
            yield unlistable_ref(self.root, error, base)


def _is_file(found: ImageRef | MatchedFolder) -> TypeGuard[ImageRef]:
    return not isinstance(found, (MatchedFolder, FailedRef))


def open_source(text: str, options: SourceOptions) -> GlobSource:
    """The pattern ``text``. Raises SourceError when the folder it starts at is missing."""
    components = text.split("/")
    first = next(i for i, part in enumerate(components) if has_magic(part))
    head = "/".join(components[:first]) or ("/" if text.startswith("/") else ".")
    if not os.path.isdir(head):
        raise SourceError(
            "sources", f"The pattern {text!r} starts at {head!r}, which is not a folder"
        )
    parts = tuple(part for part in components[first:] if part not in ("", "."))
    if ".." in parts:
        raise SourceError(
            "sources", f"The pattern {text!r} has '..' after a wildcard", "name the folder"
        )
    return GlobSource.of(text, absolute(head), PathPattern(parts), options, LocalTree())
