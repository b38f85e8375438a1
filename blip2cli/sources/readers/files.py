"""A single file, whatever its suffix: its content decides whether it is an image.

Files of kinds that are often tried and not read (``REMEDIES``) are named as what they are: refused
as the only source, else one failure (``unsupported_format``), since a shell's ``*`` takes them in.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blip2cli.errors import SourceError
from blip2cli.sources.base import FailedRef, ImageRef, Source, absolute, name_below

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions

_ARCHIVE = "unpack it first; tar and zip archives are read"
_TABLE = "save it as .csv, .jsonl or .parquet"
REMEDIES = {
    ".xlsx": _TABLE, ".xls": _TABLE, ".ods": _TABLE, ".arrow": _TABLE, ".feather": _TABLE,
    ".7z": _ARCHIVE, ".rar": _ARCHIVE, ".zst": _ARCHIVE, ".xz": _ARCHIVE, ".bz2": _ARCHIVE,
    ".pdf": "write its pages as images first, for example with pdftoppm",
}  # fmt: skip


@dataclass(frozen=True)
class FileSource(Source):
    """One image file."""

    path: str

    def refs(self, base: str) -> Iterator[ImageRef]:
        name = name_below(self.path, base)
        error = not_read(os.path.basename(self.path))
        if error is None:
            yield ImageRef(name, self.path)
        else:
            yield FailedRef(name, self.path, "unsupported_format", error.sentence())


def not_read(path: str) -> SourceError | None:
    """Why a file of this name is not read as an image, and what to do instead."""
    suffix = os.path.splitext(path)[1].lower()
    if suffix not in REMEDIES:
        return None
    return SourceError("sources", f"{path!r}: {suffix} files are not read", REMEDIES[suffix])


def open_source(text: str, options: SourceOptions) -> FileSource:
    """The file ``text``, which exists. Raises SourceError for one of a kind that is not read, if
    it is the only source."""
    error = not_read(text)
    if error is not None and len(options.sources) == 1:
        raise error
    path = absolute(text)
    return FileSource(text, os.path.dirname(path), path)
