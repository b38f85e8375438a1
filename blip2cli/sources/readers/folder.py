"""A folder, searched recursively for images by suffix (order and links: see ``walk``)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from blip2cli.errors import SourceError
from blip2cli.sources.base import IMAGE_SUFFIXES, FailedRef, ImageRef, absolute, name_below
from blip2cli.sources.walk import TreeWalk, Unlistable


@dataclass(frozen=True)
class FolderSource:
    """All images below a folder; hidden files and other suffixes are left out."""

    text: str
    root: str
    unique: bool = True

    @classmethod
    def claim(cls, text: str) -> FolderSource | None:
        """Take ``text`` if it names a folder. Raises SourceError when it may not be listed."""
        if not os.path.isdir(text):
            return None
        try:
            os.scandir(text).close()
        except OSError as error:
            raise SourceError(
                f"The folder {text!r} cannot be listed ({error.strerror}); "
                "give yourself read permission on it."
            ) from None
        return cls(text=text, root=absolute(text))

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the images; a sub-folder that cannot be listed comes as one failed image."""
        return tree_refs(self.root, base)

    def nothing(self) -> str:
        """The sentence for a folder without images."""
        return (
            f"The folder {self.text!r} holds no images "
            f"(looked, also in its sub-folders, for {', '.join(sorted(IMAGE_SUFFIXES))})."
        )


def tree_refs(top: str, base: str) -> Iterator[ImageRef]:
    """Yield the images below ``top``, named relative to ``base``."""
    for found in TreeWalk(os.fsencode(top)):
        if isinstance(found, Unlistable):
            yield unlistable_ref(found.path, found.error, base)
        else:
            yield ImageRef(name_below(found, base), found)


def unlistable_ref(path: str, error: OSError, base: str) -> FailedRef:
    """One failed image that stands for a folder whose images cannot be seen."""
    return FailedRef(
        name_below(path, base),
        path,
        "permission_denied" if isinstance(error, PermissionError) else "read_error",
        f"This folder cannot be listed ({error.strerror}), its images are left out.",
    )
