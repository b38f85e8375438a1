"""``-``: paths that arrive on standard input, one per line or separated by NUL.

Paths are taken as they come, nothing waits for the end of the input. Relative paths start at the
current folder, and images below it are named relative to it. A path whose file is missing is a
failed image, not the end of the run. Lines may end in CR LF; empty ones are passed over. Names
that hold a newline need NUL as the separator (``find -print0``).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from blip2cli.errors import SourceError, option
from blip2cli.sources.base import FailedRef, ImageRef, Source, absolute, name_below
from blip2cli.sources.records import BadRow

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions

CHUNK = 1 << 16
MAX_PATH_BYTES = 1 << 16  # far over any system's limit: what comes is not a list of paths


@dataclass(frozen=True)
class StdinSource(Source):
    """Paths read from a byte stream."""

    stream: BinaryIO
    nul: bool

    streamed: ClassVar[bool] = True

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield an image for each path. Raises SourceError for what does not begin as a list of
        paths does; a later path that is none is a failed image (``bad_row``)."""
        for number, record in enumerate(self._records(), 1):
            if isinstance(record, BadRow):
                yield _failed(number, record)
                continue
            if not self.nul:
                record = record.removesuffix(b"\r")
                if b"\0" in record:
                    if number > 1:
                        yield _failed(number, BadRow("It holds a NUL byte"))
                        continue
                    raise SourceError(
                        "nul",
                        "The paths on stdin are separated by NUL, not by newline",
                        f"add {option('nul')}",
                    )
            if record:
                path = absolute(os.path.join(self.root, os.fsdecode(record)))
                yield ImageRef(name_below(path, base), path)

    def no_images(self) -> SourceError:
        return SourceError(
            "sources",
            "No paths came on stdin",
            "pipe a list in, for example from find, or name a folder",
        )

    def _records(self) -> Iterator[bytes | BadRow]:
        separator = b"\0" if self.nul else b"\n"
        # read1 returns what has arrived; read would wait until the buffer is full.
        read = getattr(self.stream, "read1", self.stream.read)
        tail = b""
        first, skips = True, False  # within a record that is too long
        while chunk := read(CHUNK):
            *whole, tail = (tail + chunk).split(separator)
            if skips and whole:
                whole, skips = whole[1:], False
                yield BadRow(f"A path of over {MAX_PATH_BYTES} bytes")
            yield from whole
            first = first and not whole
            if skips or len(tail) > MAX_PATH_BYTES:
                tail, skips = b"", True
                if first:
                    raise SourceError(
                        "sources",
                        f"Over {MAX_PATH_BYTES} bytes came on stdin without a "
                        f"{'NUL' if self.nul else 'newline'}",
                        "'-' takes a list of paths, not an image",
                    )
        if skips:
            yield BadRow(f"A path of over {MAX_PATH_BYTES} bytes")
        elif tail:
            yield tail


def _failed(number: int, row: BadRow) -> FailedRef:
    name = f"stdin/{number:08d}"
    return FailedRef(name, name, "bad_row", f"{row.problem}.")


def open_source(text: str, options: SourceOptions, stdin: BinaryIO | None) -> StdinSource:
    """The paths on ``stdin``. Raises SourceError when there is no standard input to read."""
    if stdin is None:
        raise SourceError("sources", "The source '-' reads paths from stdin, which is closed here")
    return StdinSource(text, os.getcwd(), stdin, options.nul, unique=False)
