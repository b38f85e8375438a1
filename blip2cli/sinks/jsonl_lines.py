"""The lines of a JSONL file, plain or gzipped: finds where it is torn or damaged.

``jsonl_journal`` cuts the file there.

Torn is what a crash leaves: the end is missing, or was never written and reads as NUL bytes.
Everything else is damage. A gzip member has a CRC, so nothing of a damaged one counts.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

CHUNK = 1 << 20
_READ = 1 << 18  # bytes of a file at once, lines of which stay in the cache
LONGEST_LINE = 1 << 26  # a longer one is no row, and would fill the memory
_MEMBER = b"\x1f\x8b\x08"  # how a gzip member begins
# From where to where in a file; None: its end.
Piece = tuple[int, int | None]
_TRAILER = 8  # bytes at the end of a gzip member


@dataclass(frozen=True)
class Member:
    """Where a gzip member starts: in the file, and in its decompressed content."""

    compressed: int
    plain: int
    lines: int  # complete lines before it


class DamagedMember(Exception):  # noqa: N818 - what was found in the file, for whoever reads it
    """A gzip member that does not decompress, or not into what its CRC says."""

    def __init__(self, member: Member) -> None:
        super().__init__(member)
        self.member = member


class JsonlLines:
    """The complete lines of a file; afterwards the state of its end."""

    def __init__(self, path: str, start: int = 0, stop: int | None = None) -> None:
        """``start`` and ``stop`` are bytes of the file where lines, or gzip members, begin."""
        self.count = 0  # of the lines given
        self.end = 0  # of the last line given, in the decompressed content
        self.rest = b""  # what follows it
        self.intact = True  # the file ends with a line, and with a member where it is gzipped
        self._path, self._start, self._stop = path, start, stop
        self._members = [Member(start, 0, 0)]

    def __iter__(self) -> Iterator[bytes]:
        """Yield lines with their newlines. Raises DamagedMember, OSError."""
        for block in self._blocks():
            for line in lines_of(block):
                self.end += len(line)
                self.count += line.endswith(b"\n")
                yield line

    def blocks(self) -> Iterator[bytes]:
        """Yield lines as many together as are read at once. Raises DamagedMember, OSError.

        ``end`` is that of the block; who takes the lines adds them to ``count``.
        """
        for block in self._blocks():
            self.end += len(block)
            yield block

    def _blocks(self) -> Iterator[bytes]:
        with open(self._path, "rb") as file:
            compressed = self._path.lower().endswith(".gz")
            for chunk in self._decompressed(file) if compressed else self._written(file):
                end = chunk.rfind(b"\n") + 1
                if end:
                    block, self.rest = self.rest + chunk[:end], chunk[end:]
                    yield block
                else:
                    self.rest += chunk
                if len(self.rest) > LONGEST_LINE:
                    yield self.rest  # for the caller to refuse
                    self.rest = b""
        if self.rest:
            self.intact = False

    def member_before(self, position: int) -> Member:
        """The last member that starts at ``position`` in the content, or before."""
        return max((m for m in self._members if m.plain <= position), key=lambda m: m.plain)

    def _written(self, file: BinaryIO) -> Iterator[bytes]:
        """The bytes of the file without NUL bytes at its end."""
        size = file.seek(0, os.SEEK_END) if self._stop is None else self._stop
        left = without_nulls(file, size) - self._start
        self.intact = left == size - self._start
        file.seek(self._start)
        while left > 0 and (chunk := file.read(min(_READ, left))):
            left -= len(chunk)
            yield chunk

    def _decompressed(self, file: BinaryIO) -> Iterator[bytes]:
        """The content of all members."""
        decoder: zlib._Decompress | None = None
        position, plain = self._start, 0
        for chunk in self._written(file):
            content = b""
            while chunk or len(content) == CHUNK:
                decoder = decoder or zlib.decompressobj(wbits=31)
                try:
                    content = decoder.decompress(chunk, CHUNK)
                except zlib.error:
                    raise DamagedMember(self._members[-1]) from None
                left = decoder.unused_data if decoder.eof else decoder.unconsumed_tail
                position += len(chunk) - len(left)
                chunk = left
                plain += len(content)
                yield content
                if decoder.eof:
                    decoder, content = None, b""
                    self._members.append(Member(position, plain, self.count))
        if decoder is not None:  # torn, or its trailer ends in NUL bytes
            # A CRC or length that NUL bytes end, and that is not right, was not written whole.
            with contextlib.suppress(zlib.error):
                decoder.decompress(file.read(_TRAILER))
            self.intact = decoder.eof and not (decoder.unused_data or file.read(1))


def lines_of(block: bytes) -> Iterator[bytes]:
    """The lines of a block with their newlines; the last one may have none."""
    *lines, rest = block.split(b"\n")
    for line in lines:
        yield line + b"\n"
    if rest:
        yield rest


def without_nulls(file: BinaryIO, size: int) -> int:
    """``size`` of a file without the NUL bytes at its end."""
    while size:
        start = max(0, size - CHUNK)
        file.seek(start)
        chunk = file.read(size - start).rstrip(b"\0")
        if chunk:
            return start + len(chunk)
        size = start
    return 0


def sound_pieces(path: str) -> tuple[list[Piece], list[str]]:
    """The pieces of a file that can be read, and where those are that cannot.

    A file without compression is one piece. Raises OSError.
    """
    pieces: list[Piece] = []
    damage: list[str] = []
    start: int | None = 0
    while start is not None:
        try:
            for _ in JsonlLines(path, start):
                pass
        except DamagedMember as found:
            stop = found.member.compressed
            if stop > start:
                pieces.append((start, stop))
            start = _next_member(path, stop)
            damage.append(f"bytes {stop} to {start - 1 if start else 'the end'}")
        else:
            pieces.append((start, None))
            start = None
    return pieces, damage


def _next_member(path: str, after: int) -> int | None:
    """Where the first gzip member that decompresses begins behind the byte ``after``.

    None where there is none. Raises OSError.
    """
    position = after + 1
    with open(path, "rb") as file:
        while True:
            file.seek(position)
            chunk = file.read(CHUNK)
            found = chunk.find(_MEMBER)
            if found < 0:
                if len(chunk) < CHUNK:
                    return None
                position += CHUNK - len(_MEMBER)
                continue
            position += found
            file.seek(position)
            try:
                zlib.decompressobj(wbits=31).decompress(file.read(CHUNK), CHUNK)
            except zlib.error:
                position += 1
            else:
                return position
