"""Reading a JSONL output back: which images are whole, and where a crash tore the file.

A killed process leaves whole lines and perhaps a part of one, at the end. What is behind the last
whole image is cut off: its rows are made again. In a gzip file that cut can lie inside a member;
then the members before are kept as they are and the rest is packed again, into a new file that
takes the place of the old one in one step.
"""

from __future__ import annotations

import functools
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from blip2cli.errors import OutputError
from blip2cli.sinks.journal import Journal, RowCount, RowNames
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage import durable

_CHUNK = 1 << 20
_FIRST_KEY = '{"file_name": '
_decode = json.JSONDecoder().raw_decode


_GOOD = b'"error": null}\n'  # how a row ends that has an error column and no error


def read_jsonl(
    paths: OutputPaths, compressed: bool, row_count: RowCount, inline_errors: bool = False
) -> Journal | None:
    """The journal of a JSONL output; None when there is none. Raises OutputError for lines that
    are no rows."""
    if not os.path.exists(paths.final):
        return None
    lines = _Lines(paths.final, compressed)
    names = RowNames(row_count)
    bad = 0
    for number, line in enumerate(lines, 1):
        if bad:
            raise OutputError(
                f"--resume: line {bad} of {paths.final!r} is no row of this tool; choose another "
                "name, or add --overwrite instead."
            )
        name = _file_name(line)
        if name is None:
            bad = number  # as the very last line it is what a power cut left
        else:
            names.add(name, lines.place, inline_errors and not line.endswith(_GOOD))
    names.end()
    cut = names.whole_until
    repair = functools.partial(_repair, paths, compressed, cut, lines.member_before(cut))
    whole = lines.whole and cut == lines.place
    settings = _settings(paths)
    if whole and not os.path.exists(paths.next_meta):
        return Journal(names.done, names.rows, names.failed, settings)
    return Journal(names.done, names.rows, names.failed, settings, repair)


def _file_name(line: bytes) -> str | None:
    """The file name of a row, without parsing all of it; None when it is no row."""
    try:
        text = line.decode("utf-8")
        if text.startswith(_FIRST_KEY) and text.endswith("}\n"):
            name = _decode(text, len(_FIRST_KEY))[0]
        else:
            name = json.loads(text)["file_name"]
    except (ValueError, KeyError, TypeError):
        return None
    return name if isinstance(name, str) else None


@dataclass(frozen=True)
class _Member:
    """Where a gzip member starts, in the file and in its content."""

    packed: int
    plain: int


class _Lines:
    """The whole lines of a file, plain or gzipped; afterwards what is known of its end."""

    def __init__(self, path: str, compressed: bool) -> None:
        self.place = 0  # the end of the last line given, in the content
        self.whole = True  # the file ends with a line, and with a member where it is packed
        self._path = path
        self._compressed = compressed
        self._members = [_Member(0, 0)]

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        with open(self._path, "rb") as file:
            chunks = (
                self._unpacked(file) if self._compressed else iter(lambda: file.read(_CHUNK), b"")
            )
            for chunk in chunks:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self.place += len(line) + 1
                    yield line + b"\n"
        if rest:
            self.whole = False

    def member_before(self, place: int) -> _Member:
        """The last member that starts at ``place`` in the content, or before."""
        return max((m for m in self._members if m.plain <= place), key=lambda m: m.plain)

    def _unpacked(self, file: BinaryIO) -> Iterator[bytes]:
        """The content of all members, as far as it can be read."""
        member: zlib._Decompress | None = None
        packed = plain = 0
        while chunk := file.read(_CHUNK):
            while chunk:
                member = member or zlib.decompressobj(wbits=31)
                try:
                    content = member.decompress(chunk)
                except zlib.error:
                    self.whole = False
                    return
                packed += len(chunk) - len(member.unused_data)
                plain += len(content)
                yield content
                chunk = member.unused_data
                if not member.eof:
                    break
                member = None
                self._members.append(_Member(packed, plain))
        if member is not None:
            self.whole = False


def _repair(paths: OutputPaths, compressed: bool, cut: int, member: _Member) -> None:
    settle_settings(paths)
    if not compressed:
        descriptor = os.open(paths.final, os.O_WRONLY)
        try:
            if os.fstat(descriptor).st_size != cut:
                os.ftruncate(descriptor, cut)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return
    with open(paths.final, "rb") as old, open(paths.temporary, "wb") as new:
        _copy(old, new, member.packed)
        unpack = zlib.decompressobj(wbits=31)
        kept = b""
        while len(kept) < cut - member.plain and (chunk := old.read(_CHUNK)):
            kept += unpack.decompress(chunk, cut - member.plain - len(kept))
        if kept:
            pack = zlib.compressobj(wbits=31)
            new.write(pack.compress(kept) + pack.flush())
        new.flush()
        os.fsync(new.fileno())
    durable.rename_into_place(paths.temporary, paths.final)


def _copy(old: BinaryIO, new: BinaryIO, size: int) -> None:
    while size > 0 and (chunk := old.read(min(size, _CHUNK))):
        new.write(chunk)
        size -= len(chunk)


def _settings(paths: OutputPaths) -> dict[str, object] | None:
    path = paths.next_meta if _is_next(paths) else paths.meta
    try:
        with open(path, "rb") as file:
            settings = json.load(file)["settings"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return settings if isinstance(settings, dict) else None


def _is_next(paths: OutputPaths) -> bool:
    """Whether the settings that were to follow a new output belong to the one that is there."""
    try:
        with open(paths.next_meta, "rb") as file:
            inode = json.load(file)["inode"]
        return bool(inode == os.stat(paths.final).st_ino)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def settle_settings(paths: OutputPaths) -> None:
    """Finish what a crash between an output and its settings left undone."""
    if _is_next(paths):
        os.replace(paths.next_meta, paths.meta)
        durable.sync_folder(paths.folder)
    else:
        durable.remove(paths.next_meta)
