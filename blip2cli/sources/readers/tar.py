"""Tar archives, above all WebDataset shards: ``.tar``, ``.tar.gz`` and ``.tgz``.

Members are read in sequence and never extracted. Every regular member with an image suffix is an
image. A *sample* is a run of members whose names agree up to the first dot of the last component;
the option ``keep`` takes fields of the sample's ``.json`` member, and ``txt`` is its ``.txt``
member.

A worker reads the image out of a plain tar by itself; out of a compressed one, which has no random
access, the bytes are taken while it is listed.

``error_type`` names raised here: ``truncated_archive`` (one entry for all that follows the place
where an archive breaks off), ``too_large``, ``bad_metadata`` (a ``.json`` member that is no
object), ``read_error``.
"""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from itertools import islice
from typing import TYPE_CHECKING

from blip2cli.errors import ImageError, SourceError
from blip2cli.sources import base as limits
from blip2cli.sources.base import (
    FailedRef,
    ImageRef,
    check_size,
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
from blip2cli.sources.manifest_paths import file_location
from blip2cli.sources.members import MemberNames, is_image_member
from blip2cli.sources.open_file_cache import cached_open
from blip2cli.sources.tar_file import BROKEN, BreaksOffError, TarStream, open_tar
from blip2cli.storage.opening import open_binary

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions

TEXT = "txt"  # the column name of a sample's .txt member
SAMPLED = 100  # samples that column types are inferred from
MAX_TEXT_BYTES = 1 << 24  # of a .json or .txt member


@dataclass(frozen=True)
class TarRef(ImageRef):
    """An image inside an uncompressed tar."""

    location: str
    offset: int  # of the member's first byte in the archive
    size: int

    def read(self) -> bytes:
        check_size(self.size)
        with reading_errors("archive"):
            file = cached_open(open_binary, self.location)
            file.seek(self.offset)
            data = file.read(self.size)
        if len(data) < self.size:
            raise ImageError("truncated_archive", "The archive ends inside it.")
        return data


@dataclass(frozen=True)
class BytesRef(ImageRef):
    """An image whose bytes had to be read when it was listed; ``path`` only says where."""

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
                for sample in self.samples(base):
                    yield from sample.refs(self.columns)
            except BreaksOffError as error:
                folder = self.root.rpartition("/")[0]
                name = name_below(self.root, base if base != self.root else folder)
                message = f"The archive breaks off here ({error}); what follows is lost."
                carried = (None,) * len(self.columns)
                yield FailedRef(name, self.root, "truncated_archive", message, carried=carried)

    def no_images(self) -> SourceError:
        return SourceError("sources", f"The archive {self.text!r} holds no images")

    def samples(self, base: str) -> Iterator[_Sample]:
        """Group the members; without carried columns nothing has to wait for its group.

        Raises BreaksOffError after the samples before, the one it breaks off in included.
        """
        names = MemberNames(self.root, base)
        sample = _Sample("")
        with open_tar(self.root) as tar:
            try:
                for number, info in enumerate(tar.members()):
                    key, kind = _split(info.name)
                    if key != sample.key or not self.columns:
                        yield sample
                        sample = _Sample(key)
                    if is_image_member(info.name):
                        sample.images.append(_image(self.root, names, info, tar, number))
                    elif self.columns and key and kind in ("json", TEXT):
                        sample.describe(kind, info, tar)
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
                tar.archive()
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
        rows.extend(sample.fields for sample in islice(samples, SAMPLED))
    existing = dict.fromkeys(name for row in rows for name in row)
    for name in keep:
        if rows and name not in existing:
            raise missing_column(f"the archive {text!r}, in its first samples,", name, existing)
    return infer_columns(rows, keep)


class _Sample:
    """Members that belong together: images, and the fields that describe all of them."""

    def __init__(self, key: str) -> None:
        self.key = key
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

    def describe(self, kind: str, info: tarfile.TarInfo, tar: TarStream) -> None:
        """Read a ``.json`` or ``.txt`` member. Raises BreaksOffError."""
        if info.size > MAX_TEXT_BYTES:
            self.broken = f"Its .{kind} member holds {info.size} bytes, over 16 MiB."
            return
        data = tar.data(info)
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


def _image(
    location: str, names: MemberNames, info: tarfile.TarInfo, tar: TarStream, number: int
) -> ImageRef:
    """The reference to one member. Raises BreaksOffError when the archive ends inside it."""
    name, path = names.unique(info.name, number)
    if info.issparse():
        message = "It is stored as a sparse file, which is not supported."
        return FailedRef(name, path, "read_error", message)
    if tar.size is not None:
        if info.offset_data + info.size > tar.size:
            raise BreaksOffError("it ends inside a member")
        return TarRef(name, path, location, info.offset_data, info.size)
    if info.size > limits.MAX_FILE_BYTES:
        return FailedRef(name, path, "too_large", f"It holds {info.size} bytes, over 1 GiB.")
    return BytesRef(name, path, tar.data(info))


def _split(name: str) -> tuple[str, str]:
    """WebDataset's key and extension; no key for a name that begins with a dot."""
    folder, slash, last = name.rpartition("/")
    stem, _, extension = last.partition(".")
    return (folder + slash + stem if stem else ""), extension.lower()
