"""``-``: paths that arrive on standard input, one per line or separated by NUL.

Paths are taken as they come, nothing waits for the end of the input. Relative paths start at the
current folder, and images below it are named relative to it. A path whose file is missing is a
failed image, not the end of the run. Lines may end in CR LF; empty ones are passed over. Names
that hold a newline need NUL as the separator (``find -print0``).
"""

from __future__ import annotations

import os
import select
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO, ClassVar

from blip2cli.errors import SourceError, option
from blip2cli.sources.base import FailedRef, ImageRef, Source, absolute, name_below
from blip2cli.sources.records import BadRow

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions

CHUNK = 1 << 16
_WAIT_SECONDS = 0.05  # for a path, before nothing is taken to come for now
MAX_PATH_BYTES = 1 << 16  # far over any system's limit: what comes is not a list of paths


class PathStream:
    """A byte stream of paths, which knows whether one can be had without waiting."""

    def __init__(self, stream: BinaryIO) -> None:
        self._stream = stream
        # read1 returns what has arrived; read would wait until the buffer is full.
        self.read = getattr(stream, "read1", stream.read)
        self.waiting = 1  # paths that were read and nobody has taken; 1: nothing was read yet

    def hold(self, refs: Sequence[ImageRef]) -> Iterator[ImageRef]:
        """``refs`` of paths once more: they wait again, until they are taken."""
        self.waiting += len(refs)
        return map(self._taken, refs)

    def comes(self) -> bool:
        """Whether a path can be taken, or the end seen, now or very soon: whoever writes may wait
        for the rows of paths before it."""
        try:
            return self.waiting > 0 or bool(select.select([self._stream], [], [], _WAIT_SECONDS)[0])
        except (OSError, ValueError):  # no file that can be waited for
            return True

    def _taken(self, ref: ImageRef) -> ImageRef:
        self.waiting -= 1
        return ref


@dataclass(frozen=True)
class StdinSource(Source):
    """Paths read from a byte stream."""

    stream: PathStream
    nul: bool

    streamed: ClassVar[bool] = True

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield an image for each path. Raises SourceError for what does not begin as a list of
        paths does; a later path that is none is a failed image (``bad_row``)."""
        for number, record in enumerate(self._records(), 1):
            if isinstance(record, BadRow):
                yield _failed(number, record)
                continue
            if not self.nul and b"\0" in record:
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
        separator, dropped = (b"\0", b"") if self.nul else (b"\n", b"\r")
        stream = self.stream
        stream.waiting = 0
        tail = b""
        first, skips = True, False  # within a record that is too long
        while chunk := stream.read(CHUNK):
            *whole, tail = (tail + chunk).split(separator)
            if skips and whole:
                whole, skips = whole[1:], False
                yield BadRow(f"A path of over {MAX_PATH_BYTES} bytes")
            whole = [record.removesuffix(dropped) for record in whole]
            stream.waiting = sum(map(bool, whole))
            for record in whole:
                stream.waiting -= bool(record)
                yield record
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
            yield tail.removesuffix(dropped)


def path_stream(sources: Iterable[Source]) -> PathStream | None:
    """Where paths come as somebody gives them; None where none do."""
    return next((each.stream for each in sources if isinstance(each, StdinSource)), None)


def _failed(number: int, row: BadRow) -> FailedRef:
    name = f"stdin/{number:08d}"
    return FailedRef(name, name, "bad_row", f"{row.problem}.")


def open_source(text: str, options: SourceOptions, stdin: BinaryIO | None) -> StdinSource:
    """The paths on ``stdin``. Raises SourceError when there is no standard input to read."""
    if stdin is None:
        raise SourceError("sources", "The source '-' reads paths from stdin, which is closed here")
    return StdinSource(text, os.getcwd(), PathStream(stdin), options.nul, unique=False)
