"""A folder, searched recursively for images by suffix (order: see ``walk``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blip2cli.errors import SourceError
from blip2cli.sources.base import ImageRef, RefBlock, Source, absolute
from blip2cli.sources.image_suffixes import IMAGE_SUFFIXES, listed_others
from blip2cli.sources.local_tree import LocalTree
from blip2cli.storage.opening import is_remote

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions
    from blip2cli.sources.walk import Tree


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


def open_source(text: str, options: SourceOptions) -> FolderSource:
    """The folder ``text``. Raises SourceError when it may not be listed."""
    try:
        os.scandir(text).close()
    except OSError as error:
        raise SourceError(
            "sources",
            f"The folder {text!r} cannot be listed ({error.strerror})",
            "give yourself read permission on it",
        ) from None
    return FolderSource(text, absolute(text))
