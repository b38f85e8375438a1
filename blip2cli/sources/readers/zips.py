"""Zip archives: every member with an image suffix, in the bytewise order of their names.

Members are never extracted, and never unpacked beyond the size an image may have. A symbolic link
is the image it names. Names are UTF-8 where they are valid UTF-8, else in code page 437, as the
format says. Archives from DOS and Windows may separate folders by backslashes.

``error_type`` names raised here: ``encrypted``, ``missing`` (a link to nothing in the archive),
``too_large``, ``read_error``.
"""

from __future__ import annotations

import lzma
import stat
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

from blip2cli.errors import ImageError, SourceError
from blip2cli.sources.base import (
    FailedRef,
    ImageRef,
    Source,
    opening_errors,
    reading_errors,
)
from blip2cli.sources.file_size import MAX_FILE_BYTES, check_size
from blip2cli.sources.manifest_paths import file_location
from blip2cli.sources.member_links import follow, member_path, target_path
from blip2cli.sources.members import MemberNames, is_image_member
from blip2cli.sources.open_file_cache import cached_open
from blip2cli.storage.opening import open_binary

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions

MAX_DIRECTORY_BYTES = 1 << 27  # fifteen times as much in memory: 2 GB
# Bytes unpacked at once where the library does not bound what becomes of them: a block of bzip2 has
# 45 bytes and may hold 45 MB.
PIECE = 64
MAX_LINK_BYTES = 4096
_FILE = (0, stat.S_IFREG)  # kinds of regular members; most systems give none
_DIRECTORY_SIZE = 5  # its place in the end record
_DOS = 0  # the system an archive was made on
_ENCRYPTED = 0x1  # bits of a member's flags
_UTF8 = 0x800


class _Zip(zipfile.ZipFile):
    """A zip file that owns the file it is read from."""

    _file: BinaryIO | None = None  # ZipFile.__del__ closes also what could not be opened

    def __init__(self, location: str) -> None:
        self._file = file = open_binary(location)
        try:
            end = zipfile._EndRecData(file)  # type: ignore[attr-defined]
            if end and end[_DIRECTORY_SIZE] > MAX_DIRECTORY_BYTES:
                raise zipfile.BadZipFile(
                    f"a directory of {end[_DIRECTORY_SIZE]} bytes, over 128 MiB"
                )
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

    def read(self, most: int = MAX_FILE_BYTES) -> bytes:
        with reading_errors("archive"):
            try:
                archive = cached_open(_Zip, self.location)
                info = archive.infolist()[self.index]
                if info.flag_bits & _ENCRYPTED:
                    raise ImageError("encrypted", "It is encrypted; unpack the archive first.")
                check_size(info.file_size, most=most)
                with archive.open(info) as member:
                    if info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                        data = member.read(most + 1)
                    else:
                        member.MIN_READ_SIZE = PIECE  # type: ignore[attr-defined]
                        data = b"".join(iter(lambda: member.read(PIECE), b""))
                check_size(len(data), most=most)
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
            infos = archive.infolist()
            named = [(_name(info), index) for index, info in enumerate(infos)]
            links = {
                member_path(name): target_path(name, _text(archive, infos[index]))
                for name, index in named
                if _kind(infos[index]) == stat.S_IFLNK
            }
        files = {member_path(n): i for n, i in named if _kind(infos[i]) in _FILE} if links else {}
        images = [(name, index) for name, index in named if is_image_member(name)]
        images.sort(key=lambda image: image[0].encode("utf-8", "surrogateescape"))
        names = MemberNames(self.root, base)
        for name, index in images:
            kind, place = _kind(infos[index]), index
            if kind == stat.S_IFLNK:
                target = links[member_path(name)]
                place = files.get(follow(target, links), -1)
                if place < 0:
                    message = f"It is a link to {target[:200]!r}, which the archive does not hold."
                    yield FailedRef(*names.unique(name, index), "missing", message)
                    continue
            elif kind not in _FILE:
                continue
            yield ZipRef(*names.unique(name, index), self.root, place)

    def content_files(self) -> tuple[str]:
        return (self.root,)

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


def _kind(info: zipfile.ZipInfo) -> int:
    """The kind of a member by its Unix mode, 0 if it has none."""
    return stat.S_IFMT(info.external_attr >> 16)


def _text(archive: _Zip, link: zipfile.ZipInfo) -> str:
    """What a symbolic link holds; empty where it cannot be read."""
    try:
        with archive.open(link) as member:
            return member.read(MAX_LINK_BYTES).decode("utf-8", "surrogateescape")
    except (OSError, ValueError, RuntimeError, EOFError, zipfile.BadZipFile, zlib.error):
        return ""


def _name(info: zipfile.ZipInfo) -> str:
    """The member's name. Many tools write UTF-8 without the flag for it."""
    name = info.filename
    if not info.flag_bits & _UTF8:
        with suppress(UnicodeError):
            name = name.encode("cp437").decode("utf-8")
    # No name on these systems holds a backslash.
    return name.replace("\\", "/") if info.create_system == _DOS else name
