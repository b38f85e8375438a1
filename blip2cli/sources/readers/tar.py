"""Tar archives, above all WebDataset shards: ``.tar``, ``.tar.gz`` and ``.tgz``.

Members are read in sequence and never extracted. Every regular member with an image suffix is an
image. A *sample* is a run of members whose names agree up to the first dot of the last component;
``--keep`` takes fields of the sample's ``.json`` member, and ``txt`` is its ``.txt`` member.

A worker reads the image out of a plain tar by itself; out of a compressed one, which has no random
access, the bytes are taken while it is listed.

``error_type`` names raised here: ``truncated_archive`` (one entry for all that follows the place
where an archive breaks off), ``too_large``, ``bad_metadata`` (a ``.json`` member that is no
object), ``read_error``.
"""

from __future__ import annotations

import gzip
import json
import os
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import islice
from typing import BinaryIO, cast

from blip2cli.errors import ImageError, SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import base as limits
from blip2cli.sources.base import FailedRef, ImageRef, name_below
from blip2cli.sources.carried_columns import CarriedColumn, absent, types_in
from blip2cli.sources.members import Names, wanted
from blip2cli.sources.open_file_cache import CarriedRef, check_size, held, reading
from blip2cli.sources.readers.manifest import container, opening_errors
from blip2cli.storage.opening import open_binary

SUFFIXES = (".tar", ".tar.gz", ".tgz")
TEXT = "txt"  # the name that --keep has for a sample's .txt member
SAMPLES_LOOKED_AT = 100
MAX_TEXT_BYTES = 1 << 24  # of a .json or .txt member
MAX_HEADER_BYTES = 1 << 20  # extended headers of a member: names, times, owners

# What the libraries raise for an archive that is cut off or corrupt.
_BROKEN = (tarfile.TarError, EOFError, zlib.error, gzip.BadGzipFile, ValueError, OverflowError)


@dataclass(frozen=True)
class TarRef(ImageRef):
    """An image inside an uncompressed tar."""

    location: str
    offset: int  # of the member's first byte in the archive
    size: int

    def read(self) -> bytes:
        """Return the member's bytes. Raises ImageError."""
        check_size(self.size)
        with reading("archive"):
            file = held(open_binary, self.location)
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise ImageError("truncated_archive", "The archive ends inside it.")
        return data


@dataclass(frozen=True)
class TarSource:
    """The images in a tar archive."""

    text: str
    location: str
    carried: tuple[CarriedColumn, ...] = ()
    unique: bool = True

    @classmethod
    def claim(cls, text: str, options: SourceOptions) -> TarSource | None:
        """Take a file with one of the suffixes.

        Raises SourceError for what is no tar, OptionError for a column no sample has.
        """
        location = container(text, SUFFIXES)
        if location is None:
            return None
        source = cls(text, location)
        with opening_errors(text):
            source._check()
            return source if not options.keep else cls(text, location, source._types(options.keep))

    @property
    def root(self) -> str:
        """The archive itself, which counts as a folder."""
        return self.location

    def carried_columns(self) -> tuple[CarriedColumn, ...]:
        """The columns carried into the rows."""
        return self.carried

    def refs(self, base: str) -> Iterator[ImageRef]:
        """Yield the images; what follows the place where the archive breaks off is one failure."""
        with opening_errors(self.text):
            yield from _Reading(self, base).refs()

    def nothing(self) -> str:
        """The sentence for an archive without images."""
        return f"The archive {self.text!r} holds no images."

    def _check(self) -> None:
        try:
            with _opened(self.location) as raw:
                _tar(raw)
        except _BROKEN as error:
            raise SourceError(
                f"{self.text!r} is no tar archive, whatever its name says ({error})."
            ) from None

    def _types(self, keep: tuple[str, ...]) -> tuple[CarriedColumn, ...]:
        looking = TarSource(
            self.text, self.location, tuple(CarriedColumn(n, "string") for n in keep)
        )
        samples = _Reading(looking, self.location).samples()
        rows = [sample.fields for sample in islice(samples, SAMPLES_LOOKED_AT)]
        there = dict.fromkeys(name for row in rows for name in row)
        for name in keep:
            if rows and name not in there:
                raise absent(f"the archive {self.text!r}, in its first samples,", name, there)
        return types_in(rows, keep)


class _Sample:
    """Members that belong together: images, and what is known of all of them."""

    def __init__(self, key: str) -> None:
        self.key = key
        self.images: list[ImageRef] = []
        self.fields: dict[str, object] = {}
        self.broken: str | None = None  # what is wrong with the fields

    def refs(self, keep: tuple[CarriedColumn, ...]) -> Iterator[ImageRef]:
        """The images with the values of the columns ``keep``."""
        carried = tuple(self.fields.get(column.name) for column in keep)
        for ref in self.images:
            if self.broken is not None:
                yield FailedRef(
                    ref.file_name, ref.path, "bad_metadata", self.broken, carried=carried
                )
            else:
                yield replace(ref, carried=carried) if keep else ref


class _Reading:
    """One pass through an archive."""

    def __init__(self, source: TarSource, base: str) -> None:
        self._source = source
        self._base = base
        self._names = Names(source.location, base)
        self._failure: str | None = None  # why the archive could not be read to its end

    def refs(self) -> Iterator[ImageRef]:
        """The images, and one failure when there is more that cannot be read."""
        for sample in self.samples():
            yield from sample.refs(self._source.carried)
        if self._failure is not None:
            location = self._source.location
            name = name_below(location, self._base if self._base != location else self._folder)
            carried = (None,) * len(self._source.carried)
            yield FailedRef(name, location, "truncated_archive", self._failure, carried=carried)

    def samples(self) -> Iterator[_Sample]:
        """Group the members; without ``--keep`` nothing has to wait for its group."""
        sample = _Sample("")
        for number, (info, raw) in enumerate(self._members()):
            key, kind = _split(info.name)
            if key != sample.key or not self._source.carried:
                yield sample
                sample = _Sample(key)
            if wanted(info.name):
                ref = self._image(info, raw, number)
                if ref is None:
                    break
                sample.images.append(ref)
            elif self._source.carried and key and kind in ("json", TEXT):
                self._describe(sample, kind, info, raw)
        yield sample

    @property
    def _folder(self) -> str:
        return self._source.location.rpartition("/")[0]

    def _members(self) -> Iterator[tuple[tarfile.TarInfo, _Raw]]:
        """The regular members, up to the end mark or the place where it breaks off.

        Not by ``TarFile.next``: that remembers every member, and takes a broken header in the
        middle for the end.
        """
        with _opened(self._source.location) as raw:
            tar = _tar(raw)
            tar.offset = 0
            while True:
                try:
                    raw.file.seek(tar.offset)
                    info = tarfile.TarInfo.fromtarfile(tar)
                    if tar.offset <= info.offset:
                        raise tarfile.ReadError("a member of negative size")
                except tarfile.EOFHeaderError:  # type: ignore[attr-defined]
                    return
                except _BROKEN as error:
                    self._broke_off(error)
                    return
                if info.isreg():
                    yield info, raw

    def _image(self, info: tarfile.TarInfo, raw: _Raw, number: int) -> ImageRef | None:
        """The reference to one member; ``None`` when the archive ends inside it."""
        name, place = self._names.of(info.name, number)
        if info.issparse():
            message = "It is stored as a sparse file, which is not supported."
            return FailedRef(name, place, "read_error", message)
        if raw.size is not None:
            if info.offset_data + info.size > raw.size:
                self._broke_off("it ends inside a member")
                return None
            return TarRef(name, place, self._source.location, info.offset_data, info.size)
        if info.size > limits.MAX_FILE_BYTES:
            return FailedRef(name, place, "too_large", f"It holds {info.size} bytes, over 1 GiB.")
        data = self._data(info, raw)
        return None if data is None else CarriedRef(name, place, data)

    def _describe(self, sample: _Sample, kind: str, info: tarfile.TarInfo, raw: _Raw) -> None:
        if info.size > MAX_TEXT_BYTES:
            sample.broken = f"Its .{kind} member holds {info.size} bytes, over 16 MiB."
            return
        data = self._data(info, raw)
        if data is None:
            return
        if kind == TEXT:
            sample.fields[TEXT] = data.decode("utf-8", "surrogateescape").rstrip("\r\n")
            return
        try:
            fields = json.loads(data.decode("utf-8-sig", "surrogateescape"))
        except (ValueError, RecursionError) as error:
            sample.broken = f"Its .json member is not JSON ({error})."
            return
        if not isinstance(fields, dict):
            sample.broken = "Its .json member is not an object."
            return
        sample.fields = fields | sample.fields

    def _data(self, info: tarfile.TarInfo, raw: _Raw) -> bytes | None:
        try:
            raw.file.seek(info.offset_data)
            data = raw.file.read(info.size)
        except _BROKEN as error:
            self._broke_off(error)
            return None
        if len(data) < info.size:
            self._broke_off("it ends inside a member")
            return None
        return data

    def _broke_off(self, why: object) -> None:
        self._failure = f"The archive breaks off here ({why}); what follows is lost."


@dataclass(frozen=True)
class _Raw:
    """The bytes of a tar: as they are on disk, or unpacked on the way."""

    file: BinaryIO
    size: int | None  # None: compressed, so not known and not open to random access

    def read(self, count: int) -> bytes:
        """For headers only. Raises ReadError for one that would fill the memory."""
        if count > MAX_HEADER_BYTES:
            raise tarfile.ReadError(f"a header of {count} bytes")
        return self.file.read(count)

    def seek(self, place: int) -> int:
        return self.file.seek(place)

    def tell(self) -> int:
        return self.file.tell()


@contextmanager
def _opened(location: str) -> Iterator[_Raw]:
    with closing(open_binary(location)) as file:
        start = file.read(2)
        if start == b"\x1f\x8b":
            file.seek(0)
            with gzip.GzipFile(fileobj=file) as unpacked:
                yield _Raw(cast("BinaryIO", unpacked), None)
            return
        size = file.seek(0, os.SEEK_END)
        file.seek(0)
        yield _Raw(file, size)


def _tar(raw: _Raw) -> tarfile.TarFile:
    """Raises TarError for what does not begin like a tar."""
    return tarfile.TarFile(
        fileobj=cast("BinaryIO", raw), encoding="utf-8", errors="surrogateescape"
    )


def _split(name: str) -> tuple[str, str]:
    """WebDataset's key and extension; no key for a name that begins with a dot."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return (folder + slash + stem if stem else ""), extension.lower()
