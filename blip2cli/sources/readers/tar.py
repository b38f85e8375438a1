"""Tar archives, above all WebDataset shards: ``.tar``, ``.tar.gz``, ``.tgz``, ``.tar.bz2``.

Members are read in sequence and never extracted. Every regular member with an image suffix is an
image, and so is a hard or symbolic link to one. Archives that were concatenated are read to the
end. A *sample* is a run of members whose names agree up to the first dot of the last component,
each with another extension; the option ``keep`` takes fields of the sample's ``.json`` member, and
``txt`` is its ``.txt`` member.

A worker reads the image out of a plain tar by itself; out of a compressed one, which has no random
access, small images are taken while it is listed, and larger ones are read by workers, each of
which unpacks what lies before.

``error_type`` names raised here: ``truncated_archive`` (one entry for all that follows the place
where an archive breaks off), ``too_large``, ``missing`` (a link to nothing in the archive),
``bad_metadata`` (a ``.json`` member that is no object), ``read_error``.
"""

from __future__ import annotations

import json
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from blip2cli.errors import ImageError, SourceError
from blip2cli.sources.base import (
    FailedRef,
    ImageRef,
    name_below,
    opening_errors,
    reading_errors,
)
from blip2cli.sources.carried_columns import (
    CarriedColumn,
    ColumnedSource,
    infer_columns,
    missing_column,
)
from blip2cli.sources.file_size import MAX_FILE_BYTES, check_size
from blip2cli.sources.manifest_paths import file_location
from blip2cli.sources.members import MemberNames, is_hidden_member, is_image_member
from blip2cli.sources.open_file_cache import cached_open, close_cached
from blip2cli.sources.tar_file import BROKEN, BreaksOffError, TarStream, open_tar
from blip2cli.sources.tar_links import TarLinks

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions

TEXT = "txt"  # the column name of a sample's .txt member
SAMPLED = 100  # samples that column types are inferred from
MAX_TEXT_BYTES = 1 << 22  # of a .json or .txt member; as objects it may take 25 times as much
MAX_MEMBERS = 1000  # of a sample, which waits as a whole
# A larger image of a compressed archive is unpacked by whoever loads it: thousands of references
# wait at once.
MAX_WAITING_BYTES = 1 << 18


@dataclass(frozen=True)
class TarRef(ImageRef):
    """An image inside a tar, read where it lies."""

    location: str
    offset: int  # of the member's first byte in the archive, unpacked
    size: int

    def read(self, most: int = MAX_FILE_BYTES) -> bytes:
        check_size(self.size, most=most)
        try:
            with reading_errors("archive"):
                file = cached_open(TarStream.open, self.location).file
                file.seek(self.offset)
                data = file.read(self.size)
        except zlib.error as error:
            close_cached()
            raise ImageError("read_error", f"The archive is damaged here ({error}).") from None
        if len(data) < self.size:
            raise ImageError("truncated_archive", "The archive ends inside it.")
        return data


@dataclass(frozen=True)
class BytesRef(ImageRef):
    """A small image whose bytes were read when it was listed; ``path`` only says where."""

    data: bytes

    def read(self) -> bytes:
        return self.data


@dataclass(frozen=True)
class TarSource(ColumnedSource):
    """The images in a tar archive, which counts as a folder: ``root`` is the archive."""

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the images; what follows the place where the archive breaks off is one failure."""
        with opening_errors(self.text):
            try:
                if self.columns:
                    for sample in self.samples(base):
                        yield from sample.refs(self.columns)
                else:
                    with open_tar(self.root) as tar:
                        archive = _Archive(tar, base)
                        for number, info in enumerate(tar.members()):
                            if is_image_member(info.name) and not (info.isdir() or info.isdev()):
                                yield archive.image(info, number)
            except BreaksOffError as error:
                folder = self.root.rpartition("/")[0]
                name = name_below(self.root, base if base != self.root else folder)
                message = f"The archive breaks off here ({error}); what follows is lost."
                carried = (None,) * len(self.columns)
                yield FailedRef(name, self.root, "truncated_archive", message, carried=carried)

    def content_files(self) -> tuple[str]:
        return (self.root,)

    def no_images(self) -> SourceError:
        return SourceError("sources", f"The archive {self.text!r} holds no images")

    def samples(self, base: str) -> Iterator[_Sample]:
        """Group the members by their keys.

        Raises BreaksOffError after the samples before, the one it breaks off in included.
        """
        sample = _Sample("")
        with open_tar(self.root) as tar:
            archive = _Archive(tar, base)
            try:
                for number, info in enumerate(tar.members()):
                    # What macOS puts beside a file stands in the middle of its sample.
                    if info.isdir() or info.isdev() or is_hidden_member(info.name):
                        continue
                    key, extension = _split(info.name)
                    full = len(sample.extensions) == MAX_MEMBERS
                    if key != sample.key or extension in sample.extensions or full:
                        yield sample
                        sample = _Sample(key)
                    sample.extensions.add(extension)
                    if is_image_member(info.name):
                        sample.images.append(archive.image(info, number))
                    elif extension.lower() in ("json", TEXT):
                        sample.describe(extension.lower(), info, archive)
            except BreaksOffError:
                yield sample
                raise
        yield sample


def open_source(text: str, options: SourceOptions) -> TarSource:
    """The archive ``text``.

    Raises SourceError for what is no tar, OptionError for a column no sample has.
    """
    location = file_location(text)
    with opening_errors(text):
        try:
            with open_tar(location) as tar:
                tar.check()
        except BROKEN as error:
            raise SourceError(
                "sources", f"{text!r} is no tar archive, whatever its name says ({error})"
            ) from None
        if not options.keep:
            return TarSource(text, location)
        return TarSource(text, location, columns=_columns(text, location, options.keep))


def _columns(text: str, location: str, keep: tuple[str, ...]) -> tuple[CarriedColumn, ...]:
    columns = tuple(CarriedColumn(name, "string") for name in keep)
    rows: list[dict[str, object]] = []
    samples = TarSource(text, location, columns=columns).samples(location)
    with suppress(BreaksOffError):  # listing reports it; the rows before stay
        rows.extend(sample.fields for sample in islice((s for s in samples if s.images), SAMPLED))
    existing = dict.fromkeys(name for row in rows for name in row)
    for name in keep:
        if rows and name not in existing:
            what = f"the archive {text!r}, in its first samples,"
            raise missing_column(what, name, existing, "files of one sample stand side by side")
    return infer_columns(rows, keep)


class _Sample:
    """Members that belong together: images, and the fields that describe all of them."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.extensions: set[str] = set()
        self.images: list[ImageRef] = []
        self.fields: dict[str, object] = {}
        self.broken: str | None = None  # what is wrong with the fields

    def refs(self, columns: tuple[CarriedColumn, ...]) -> Iterator[ImageRef]:
        """The images with the values of ``columns``."""
        carried = tuple(self.fields.get(column.name) for column in columns)
        for ref in self.images:
            if self.broken is not None:
                yield FailedRef(
                    ref.file_name, ref.path, "bad_metadata", self.broken, carried=carried
                )
            else:
                yield replace(ref, carried=carried) if columns else ref

    def describe(self, kind: str, info: tarfile.TarInfo, archive: _Archive) -> None:
        """Read a ``.json`` or ``.txt`` member. Raises BreaksOffError."""
        place = archive.place(info)
        if isinstance(place, str):
            self.broken = f"Its .{kind} member: {place}"
            return
        if place[1] > MAX_TEXT_BYTES:
            self.broken = f"Its .{kind} member holds {place[1]} bytes, over 4 MiB."
            return
        data = archive.tar.data(*place)
        if kind == TEXT:
            self.fields[TEXT] = data.decode("utf-8", "surrogateescape").rstrip("\r\n")
            return
        try:
            fields = json.loads(data.decode("utf-8-sig", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            self.broken = f"Its .json member is not JSON ({error})."
            return
        if not isinstance(fields, dict):
            self.broken = "Its .json member is not an object."
            return
        self.fields = fields | self.fields


class _Archive:
    """An open archive whose images are listed below ``base``."""

    def __init__(self, tar: TarStream, base: str) -> None:
        self.tar = tar
        self._names = MemberNames(tar.location, base)
        self._links: TarLinks | None = None  # read when there is one

    def image(self, info: tarfile.TarInfo, number: int) -> ImageRef:
        """The reference to one member. Raises BreaksOffError when the archive ends inside it."""
        name, path = self._names.unique(info.name, number)
        place = self.place(info)
        if isinstance(place, str):
            kind = "missing" if info.issym() or info.islnk() else "read_error"
            return FailedRef(name, path, kind, place)
        offset, size = place
        if self.tar.size is None and size <= MAX_WAITING_BYTES and info.isreg():
            return BytesRef(name, path, self.tar.data(offset, size))
        return TarRef(name, path, self.tar.location, offset, size)

    def place(self, info: tarfile.TarInfo) -> tuple[int, int] | str:
        """Offset and size of a member's data, or why there is none.

        Raises BreaksOffError when the archive ends inside it.
        """
        if info.issym() or info.islnk():
            self._links = self._links or TarLinks(self.tar.location)
            found = self._links.find(info)
            kind = "symbolic" if info.issym() else "hard"
            target = info.linkname[:200]
            return found or f"It is a {kind} link to {target!r}, which the archive does not hold."
        if info.issparse():
            return "It is stored as a sparse file, which is not supported."
        if not info.isreg():
            return f"It is stored as a member of type {info.type!r}, which is not supported."
        if self.tar.size is not None and info.offset_data + info.size > self.tar.size:
            raise BreaksOffError("it ends inside a member")
        return info.offset_data, info.size


def _split(name: str) -> tuple[str, str]:
    """WebDataset's key and extension."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return folder + slash + stem, extension
