"""Tar files read member by member, in sequence, up to the place where a damaged one breaks off."""

from __future__ import annotations

import gzip
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from blip2cli.storage.opening import open_binary

MAX_HEADER_BYTES = 1 << 20  # extended headers of a member: names, times, owners

# What the libraries raise for an archive that is cut off or corrupt.
BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError)


class BreaksOffError(Exception):
    """The archive ends early or is damaged from here on."""


@dataclass(frozen=True)
class TarStream:
    """The bytes of a tar: as they are on disk, or unpacked on the way."""

    file: BinaryIO
    size: int | None  # in bytes; None: compressed, so not known and no random access

    def read(self, count: int) -> bytes:
        """For headers only. Raises ReadError for one that would fill the memory."""
        if count > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self.file.read(count)

    def seek(self, place: int) -> int:
        return self.file.seek(place)

    def tell(self) -> int:
        return self.file.tell()

    def members(self) -> Iterator[tarfile.TarInfo]:
        """The regular members, up to the end mark. Raises BreaksOffError.

        Not by ``TarFile.next``: that remembers every member, and takes a broken header in the
        middle for the end.
        """
        tar = self.archive()
        tar.offset = 0
        while True:
            try:
                self.file.seek(tar.offset)
                info = tarfile.TarInfo.fromtarfile(tar)
                if tar.offset <= info.offset:
                    raise tarfile.ReadError("a member of negative size")
            except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                return
            except BROKEN as error:
                raise BreaksOffError(error) from None
            if info.isreg():
                yield info

    def data(self, info: tarfile.TarInfo) -> bytes:
        """The content of a member. Raises BreaksOffError."""
        try:
            self.file.seek(info.offset_data)
            data = self.file.read(info.size)
        except BROKEN as error:
            raise BreaksOffError(error) from None
        if len(data) < info.size:
            raise BreaksOffError("it ends inside a member")
        return data

    def archive(self) -> tarfile.TarFile:
        """Its beginning as the standard library reads it. Raises one of BROKEN for no tar."""
        return tarfile.TarFile(
            fileobj=cast("BinaryIO", self), encoding="utf-8", errors="surrogateescape"
        )


@contextmanager
def open_tar(location: str) -> Iterator[TarStream]:
    """Open a local path or a URL; gzip is recognised by content. Raises OSError."""
    with closing(open_binary(location)) as file:
        start = file.read(2)
        if start == b"\x1f\x8b":
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield TarStream(cast("BinaryIO", unpacked), None)
            return
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        yield TarStream(file, size)
