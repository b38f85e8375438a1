"""Zip archives: every member with an image suffix, in the bytewise order of their names.

Members are never extracted, and never unpacked beyond the size an image may have.

``error_type`` names raised here: ``encrypted``, ``too_large``, ``read_error``.
"""

from __future__ import annotations

import lzma
import stat
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from blip2cli.errors import ImageError, SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import base as limits
from blip2cli.sources.base import ImageRef
from blip2cli.sources.members import Names, wanted
from blip2cli.sources.open_file_cache import check_size, held, reading
from blip2cli.sources.readers.manifest import container, opening_errors
from blip2cli.storage.opening import open_binary

_ENCRYPTED = 0x1  # bits of a member's flags
_UTF8 = 0x800


class _Zip(zipfile.ZipFile):
    """A zip file that owns the file it is read from."""

    _below: BinaryIO | None = None  # ZipFile.__del__ closes also what could not be opened

    def __init__(self, location: str) -> None:
        self._below = below = open_binary(location)
        try:
            super().__init__(below)
        except BaseException:
            below.close()
            raise

    def close(self) -> None:
        super().close()
        if self._below is not None:
            self._below.close()


@dataclass(frozen=True)
class ZipRef(ImageRef):
    """An image inside a zip file."""

    location: str
    index: int  # in the archive's directory

    def read(self) -> bytes:
        """Return the member's bytes. Raises ImageError."""
        with reading("archive"):
            try:
                archive = held(_Zip, self.location)
                info = archive.infolist()[self.index]
                if info.flag_bits & _ENCRYPTED:
                    raise ImageError("encrypted", "It is encrypted; unpack the archive first.")
                check_size(info.file_size)
                with archive.open(info) as member:
                    data = member.read(limits.MAX_FILE_BYTES + 1)
                check_size(len(data))
                return data
            except NotImplementedError:
                raise ImageError(
                    "read_error", "It is compressed in a way that is not supported."
                ) from None
            except (zipfile.BadZipFile, zlib.error, lzma.LZMAError, IndexError) as error:
                raise ImageError("read_error", f"The archive is damaged here ({error}).") from None


@dataclass(frozen=True)
class ZipSource:
    """The images in a zip archive."""

    text: str
    location: str
    unique: bool = True

    @classmethod
    def claim(cls, text: str, options: SourceOptions) -> ZipSource | None:
        """Take a ``.zip`` file. Raises SourceError for what is none."""
        location = container(text, (".zip",))
        if location is None:
            return None
        source = cls(text, location)
        source._open().close()
        return source

    @property
    def root(self) -> str:
        """The archive itself, which counts as a folder."""
        return self.location

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the images."""
        with self._open() as archive:
            members = [
                (_name(info), index)
                for index, info in enumerate(archive.infolist())
                # What is no regular file says so in its Unix mode, if it has one.
                if stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
            ]
        images = [(name, index) for name, index in members if wanted(name)]
        images.sort(key=lambda image: image[0].encode("utf-8", "surrogateescape"))
        names = Names(self.location, base)
        for name, index in images:
            yield ZipRef(*names.of(name, index), self.location, index)

    def nothing(self) -> str:
        """The sentence for an archive without images."""
        return f"The archive {self.text!r} holds no images."

    def _open(self) -> _Zip:
        with opening_errors(self.text):
            try:
                return _Zip(self.location)
            except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
                raise SourceError(
                    f"{self.text!r} is no zip archive, or a damaged one ({error})."
                ) from None


def _name(info: zipfile.ZipInfo) -> str:
    """The member's name. Many tools write UTF-8 without saying so."""
    if info.flag_bits & _UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename
