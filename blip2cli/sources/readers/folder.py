"""A folder, searched recursively for images by suffix (order: see ``walk``).

One that holds no image, but tables or archives of one kind, is read as a glob of these.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blip2cli.errors import SourceError, either
from blip2cli.sources.base import ImageRef, RefBlock, Source, absolute
from blip2cli.sources.image_suffixes import IMAGE_SUFFIXES, listed_others
from blip2cli.sources.local_tree import LocalTree
from blip2cli.sources.patterns import PathPattern
from blip2cli.sources.readers import TARS
from blip2cli.storage.opening import is_remote

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions
    from blip2cli.sources.walk import Tree

_CONTAINERS = (".parquet", *TARS, ".zip")


@dataclass(frozen=True)
class FolderSource(Source):
    """All images below a folder; hidden files and other suffixes are left out."""

    tree: Tree = field(default_factory=LocalTree)

    @property
    def by_name(self) -> bool:
        return True

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the images; a sub-folder that cannot be listed comes as one failed image."""
        return self.tree.images_below(self.root, base)

    def blocks(self, base: str) -> Iterator[RefBlock] | None:
        if not isinstance(self.tree, LocalTree):
            return None
        return self.tree.blocks_below(self.root, base)

    def no_images(self) -> SourceError:
        folder = repr(self.text) if is_remote(self.root) else f"The folder {self.text!r}"
        others = f"it has {listed_others(self.tree.others)}" if self.tree.others else ""
        return SourceError(
            "sources",
            f"{folder} holds no images "
            f"(looked, also in its sub-folders, for {', '.join(sorted(IMAGE_SUFFIXES))})",
            others,
        )


def open_source(text: str, options: SourceOptions) -> Source:
    """The folder ``text``. Raises SourceError when it may not be listed, or holds no image but
    tables and archives of several kinds."""
    try:
        kinds = _only_containers(text)
    except OSError as error:
        raise SourceError(
            "sources",
            f"The folder {text!r} cannot be listed ({error.strerror})",
            "give yourself read permission on it",
        ) from None
    if not kinds:
        return FolderSource(text, absolute(text))
    from blip2cli.sources.readers.globs import GlobSource

    pattern = PathPattern(("**", f"*{one_kind(text, kinds)}"))
    return GlobSource.of(text, absolute(text), pattern, options, LocalTree())


def container_suffix(name: str) -> str:
    """The suffix of a table of images or an archive; empty for any other file."""
    return next((suffix for suffix in _CONTAINERS if name.endswith(suffix)), "")


def one_kind(text: str, kinds: Iterable[str]) -> str:
    """The only suffix of ``kinds``. Raises SourceError for several, which are in ``text``."""
    first, *others = sorted(kinds)
    if others:
        raise SourceError(
            "sources",
            f"{text!r} holds files of several kinds: {either((first, *others))}",
            f"name those of one kind, such as '{text.rstrip('/')}/**/*{first}'",
        )
    return first


def _only_containers(top: str) -> set[str]:
    """The suffixes of tables and archives below ``top``; none where there is an image, which in
    most folders is seen soon. Raises OSError when ``top`` cannot be listed."""
    found: set[str] = set()
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if name.startswith("."):
                        continue
                    if os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES:
                        return set()
                    if entry.is_dir(follow_symlinks=False):
                        waiting.append(entry.path)
                    elif entry.is_symlink() and os.path.isdir(entry.path):  # perhaps of images
                        return set()
                    else:  # a file, or a link to one, as in the cache of the hub
                        found.add(container_suffix(name))
        except OSError:
            if folder == top:
                raise
    return found - {""}
