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
from typing import TYPE_CHECKING, BinaryIO

from blip2cli.errors import ImageError, SourceError
from blip2cli.sources import base as limits
from blip2cli.sources.base import ImageRef, Source, check_size, opening_errors, reading_errors
from blip2cli.sources.manifest_paths import file_location
from blip2cli.sources.members import MemberNames, is_image_member
from blip2cli.sources.open_file_cache import cached_open
from blip2cli.storage.opening import open_binary

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions

_ENCRYPTED = 0x1  # bits of a member's flags
_UTF8 = 0x800


class _Zip(zipfile.ZipFile):
    """A zip file that owns the file it is read from."""

    _file: BinaryIO | None = None  # ZipFile.__del__ closes also what could not be opened

    def __init__(self, location: str) -> None:
        self._file = file = open_binary(location)
        try:
            super().__init__(file)
        except BaseException:
            file.close()
            raise

    def close(self) -> None:
        super().close()
        if self._file is not None:
            self._file.close()


@dataclass(frozen=True)
class ZipRef(ImageRef):
    """An image inside a zip file."""

    location: str
    index: int  # in the archive's directory

    def read(self) -> bytes:
        with reading_errors("archive"):
            try:
                archive = cached_open(_Zip, self.location)
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
class ZipSource(Source):
    """The images in a zip archive, which counts as a folder: ``root`` is the archive."""

    def refs(self, base: str) -> Iterator[ImageRef]:
        with _opened(self.text, self.root) as archive:
            members = [
                (_name(info), index)
                for index, info in enumerate(archive.infolist())
                # What is no regular file says so in its Unix mode, if it has one.
                if stat.S_IFMT(info.external_attr >> 16) in (0, stat.S_IFREG)
            ]
        images = [(name, index) for name, index in members if is_image_member(name)]
        images.sort(key=lambda image: image[0].encode("utf-8", "surrogateescape"))
        names = MemberNames(self.root, base)
        for name, index in images:
            yield ZipRef(*names.unique(name, index), self.root, index)

    def no_images(self) -> SourceError:
        return SourceError("sources", f"The archive {self.text!r} holds no images")


def open_source(text: str, options: SourceOptions) -> ZipSource:
    """The archive ``text``, a ``.zip`` file. Raises SourceError when it is none."""
    location = file_location(text)
    _opened(text, location).close()
    return ZipSource(text, location)


def _opened(text: str, location: str) -> _Zip:
    with opening_errors(text):
        try:
            return _Zip(location)
        except (zipfile.BadZipFile, ValueError, NotImplementedError) as error:
            raise SourceError(
                "sources", f"{text!r} is no zip archive, or a damaged one ({error})"
            ) from None


def _name(info: zipfile.ZipInfo) -> str:
    """The member's name. Many tools write UTF-8 without the flag for it."""
    if info.flag_bits & _UTF8:
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename
