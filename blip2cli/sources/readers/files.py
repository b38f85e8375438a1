"""A single file, whatever its suffix: its content decides whether it is an image."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blip2cli.sources.base import ImageRef, Source, absolute, name_below

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions


@dataclass(frozen=True)
class FileSource(Source):
    """One image file."""

    path: str

    def refs(self, base: str) -> Iterator[ImageRef]:
        yield ImageRef(name_below(self.path, base), self.path)


def open_source(text: str, options: SourceOptions) -> FileSource:
    """The file ``text``, which exists."""
    path = absolute(text)
    return FileSource(text, os.path.dirname(path), path)
