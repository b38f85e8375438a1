"""Reads a JSONL output back: which images have all their rows, and where a crash tore the file.

A killed process leaves complete lines and perhaps a torn one at the end. What is behind the last
complete image is cut off, and its rows are made again. In a gzip file that cut can lie inside a
member; then the members before it are copied as they are and the rest is compressed again, into a
new file that replaces the old one in one step.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import BinaryIO

from blip2cli.errors import OutputError, option
from blip2cli.sinks.journal import Journal, RowCount, RowNames
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings import read_settings, recover_settings
from blip2cli.storage import durable
from blip2cli.storage.text_encoding import from_utf8

_CHUNK = 1 << 20
_FIRST_KEY = '{"file_name": '
_decode = json.JSONDecoder().raw_decode
_GOOD = b'"error": null}\n'  # how a row ends that has an error column and no error


def read_journal(
    paths: OutputPaths, row_count: RowCount, inline_errors: bool = False
) -> Journal | None:
    """The journal of a JSONL output; None without one. Raises OutputError for lines that are no
    rows."""
    if not os.path.exists(paths.final):
        return None
    lines = _Lines(paths)
    names = RowNames(row_count)
    bad = 0
    for number, line in enumerate(lines, 1):
        if bad:
            raise OutputError(
                "resume",
                f"{option('resume')}: line {bad} of {paths.final!r} is no row of this tool",
                f"choose another name, or add {option('overwrite')} instead",
            )
        name = _file_name(line)
        if name is None:
            bad = number  # as the last line it is what a power cut left
        else:
            names.add(name, lines.end, inline_errors and not line.endswith(_GOOD))
    names.end()
    cut = names.complete_until
    journal = Journal(names.done, names.rows, names.failed, read_settings(paths))
    if lines.intact and cut == lines.end and not os.path.exists(paths.next_meta):
        return journal
    repair = functools.partial(_repair, paths, cut, lines.member_before(cut))
    return dataclasses.replace(journal, complete=repair)


def _file_name(line: bytes) -> str | None:
    """The file name of a row; only it is parsed if it comes first. None when it is no row."""
    try:
        text = line.decode("utf-8")
        if text.startswith(_FIRST_KEY) and text.endswith("}\n"):
            name = _decode(text, len(_FIRST_KEY))[0]
        else:
            name = json.loads(text)["file_name"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(name, str):
        return None
    return from_utf8(name) if "\\" in name else name


@dataclass(frozen=True)
class _Member:
    """Where a gzip member starts: in the file, and in its decompressed content."""

    compressed: int
    plain: int


class _Lines:
    """The complete lines of a file, plain or gzipped; afterwards the state of its end."""

    def __init__(self, paths: OutputPaths) -> None:
        self.end = 0  # of the last line given, in the decompressed content
        self.intact = True  # the file ends with a line, and with a member where it is gzipped
        self._paths = paths
        self._members = [_Member(0, 0)]

    def __iter__(self) -> Iterator[bytes]:
        rest = b""
        with open(self._paths.final, "rb") as file:
            plain = iter(lambda: file.read(_CHUNK), b"")
            for chunk in self._decompressed(file) if self._paths.compressed else plain:
                *lines, rest = (rest + chunk).split(b"\n")
                for line in lines:
                    self.end += len(line) + 1
                    yield line + b"\n"
        if rest:
            self.intact = False

    def member_before(self, position: int) -> _Member:
        """The last member that starts at ``position`` in the content, or before."""
        return max((m for m in self._members if m.plain <= position), key=lambda m: m.plain)

    def _decompressed(self, file: BinaryIO) -> Iterator[bytes]:
        """The content of all members, as far as it can be read."""
        member: zlib._Decompress | None = None
        compressed = plain = 0
        while chunk := file.read(_CHUNK):
            while chunk:
                member = member or zlib.decompressobj(wbits=31)
                try:
                    content = member.decompress(chunk)
                except zlib.error:
                    self.intact = False
                    return
                compressed += len(chunk) - len(member.unused_data)
                plain += len(content)
                yield content
                chunk = member.unused_data
                if not member.eof:
                    break
                member = None
                self._members.append(_Member(compressed, plain))
        if member is not None:
            self.intact = False


def _repair(paths: OutputPaths, cut: int, member: _Member) -> None:
    """Cut the output off at ``cut``; ``member`` is the gzip member that holds this position."""
    recover_settings(paths)
    if not paths.compressed:
        descriptor = durable.open_regular(paths.final)
        try:
            if os.fstat(descriptor).st_size != cut:
                os.ftruncate(descriptor, cut)
                os.fsync(descriptor)
        finally:
            os.close(descriptor)
        return
    with (
        open(paths.final, "rb") as old,
        durable.written(paths.temporary(), paths.final) as new,
    ):
        left = member.compressed
        while left > 0 and (chunk := old.read(min(left, _CHUNK))):
            new.write(chunk)
            left -= len(chunk)
        decoder = zlib.decompressobj(wbits=31)
        rest = b""
        while len(rest) < cut - member.plain and (chunk := old.read(_CHUNK)):
            rest += decoder.decompress(chunk, cut - member.plain - len(rest))
        if rest:
            encoder = zlib.compressobj(wbits=31)
            new.write(encoder.compress(rest) + encoder.flush())
