"""Tar files read member by member, in sequence, up to the place where a damaged one breaks off."""

from __future__ import annotations

import bz2
import gzip
import os
import re
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import dataclass
from typing import BinaryIO, cast

from blip2cli.errors import SourceError
from blip2cli.storage.opening import open_binary

# All headers of one member: names, times, owners, attributes, the map of a sparse file.
MAX_HEADER_BYTES = 1 << 20
MAX_HEADER_READS = 100  # of blocks; the standard library reads extended headers by recursion
MAX_PADDING = 1 << 20  # zeros behind an end mark that are searched for a further archive
# The standard library's search for a character set takes quadratic time on these.
_DIGITS = re.compile(rb"\d{200}")

_USED = {*tarfile.PAX_FIELDS, "hdrcharset"}
_PACKED = ((re.compile(rb"\x1f\x8b"), gzip.open), (re.compile(rb"BZh[1-9]1AY&SY"), bz2.open))
_REFUSED = {b"\xfd7zXZ\0": ("xz", "xz -dk"), b"\x28\xb5\x2f\xfd": ("Zstandard", "zstd -d")}

# What the libraries raise for an archive that is cut off or corrupt.
BROKEN = (
    tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError,
    RecursionError,
)  # fmt: skip


class BreaksOffError(Exception):
    """The archive ends early or is damaged from here on."""


@dataclass
class TarStream:
    """The bytes of a tar: as they are on disk, or unpacked on the way.

    ``read``, ``seek`` and ``tell`` are for the standard library's parser of headers.
    """

    location: str
    file: BinaryIO
    raw: BinaryIO
    size: int | None  # in bytes; None: compressed, so not known, and slow to go back in
    _reads: int = 0  # of the headers of one member
    _bytes: int = 0

    @classmethod
    def open(cls, location: str) -> TarStream:
        """Open a local path or a URL; compression is recognised by content.

        Raises OSError, SourceError for a compression that is not read.
        """
        raw = open_binary(location)
        try:
            start = raw.read(10)
            for magic, (name, command) in _REFUSED.items():
                if start.startswith(magic):
                    problem = f"{location!r} is compressed with {name}; gzip and bzip2 are read"
                    raise SourceError("sources", problem, f"unpack it first with {command}")
            for known, unpack in _PACKED:
                if known.match(start):
                    raw.seek(0)
                    return cls(location, cast("BinaryIO", unpack(raw, "rb")), raw, None)
            size = raw.seek(0, os.SEEK_END)
            raw.seek(0)
            return cls(location, raw, raw, size)
        except BaseException:
            raw.close()
            raise

    def close(self) -> None:
        self.file.close()
        self.raw.close()

    def read(self, count: int) -> bytes:
        """Raises ReadError for headers that would fill the memory or the stack."""
        self._reads += 1
        self._bytes += count
        if self._bytes > MAX_HEADER_BYTES or self._reads > MAX_HEADER_READS:
            raise tarfile.ReadError("headers of one member that are over 1 MiB or 100 blocks")
        data = self.file.read(count)
        if _DIGITS.search(data):
            raise tarfile.ReadError("a header that is no text")
        return data

    def seek(self, place: int) -> int:
        return self.file.seek(place)

    def tell(self) -> int:
        return self.file.tell()

    def members(self) -> Iterator[tarfile.TarInfo]:
        """All members, up to the end mark of the last of concatenated archives. Raises
        BreaksOffError.

        Not by ``TarFile.next``: that remembers every member, and takes a broken header in the
        middle for the end.
        """
        tar = tarfile.TarFile(
            # Opened for reading, it would read the first member.
            mode="w",
            fileobj=cast("BinaryIO", self),
            encoding="utf-8",
            errors="surrogateescape",
        )
        tar.offset = 0
        while True:
            try:
                self._reads = self._bytes = 0
                self.file.seek(tar.offset)
                info = tarfile.TarInfo.fromtarfile(tar)
                if tar.offset <= info.offset:
                    raise tarfile.ReadError("a member of negative size")
                if tar.pax_headers:  # global ones: only what the library itself makes use of
                    tar.pax_headers = {k: v for k, v in tar.pax_headers.items() if k in _USED}
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                following = self._behind_zeros(tar.offset)
                if following is None:
                    return
                tar.offset = following
                continue
            except BROKEN as error:
                raise BreaksOffError(error) from None
            yield info

    def _behind_zeros(self, place: int) -> int | None:
        """Where a further archive begins behind the end mark at ``place``, if one does."""
        try:
            self.file.seek(place)
            data = self.file.read(MAX_PADDING)
            zeros = len(data) - len(data.lstrip(b"\0"))
            zeros -= zeros % tarfile.BLOCKSIZE
            header = data[zeros : zeros + tarfile.BLOCKSIZE]
            tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except (*BROKEN, OSError):  # padding, or what some tools leave behind it
            return None
        return place + zeros

    def data(self, offset: int, size: int) -> bytes:
        """The content of a member. Raises BreaksOffError."""
        try:
            self.file.seek(offset)
            data = self.file.read(size)
        except BROKEN as error:
            raise BreaksOffError(error) from None
        if len(data) < size:
            raise BreaksOffError("it ends inside a member")
        return data

    def check(self) -> None:
        """Raise one of BROKEN for what does not begin as a tar does."""
        self.file.seek(0)
        with suppress(tarfile.EOFHeaderError):  # type: ignore[attr-defined] # an empty one
            tarfile.TarInfo.frombuf(self.file.read(tarfile.BLOCKSIZE), "utf-8", "surrogateescape")


def open_tar(location: str) -> closing[TarStream]:
    """``TarStream.open`` as a context manager. Raises OSError, SourceError."""
    return closing(TarStream.open(location))
