"""A single file, whatever its suffix: its content decides whether it is an image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from blip2cli.sources.base import ImageRef, absolute, name_below


@dataclass(frozen=True)
class FileSource:
    """One image file."""

    text: str
    path: str
    unique: bool = True

    @classmethod
    def claim(cls, text: str) -> FileSource | None:
        """Take ``text`` if something that is not a folder stands there."""
        if os.path.isdir(text) or not os.path.lexists(text):
            return None
        return cls(text=text, path=absolute(text))

    @property
    def root(self) -> str:
        """The folder the file lies in."""
        return os.path.dirname(self.path)

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the one image."""
        yield ImageRef(name_below(self.path, base), self.path)

    def nothing(self) -> str:
        """Never needed in practice: a file source always gives one image."""
        return f"The file {self.text!r} gave no image."
