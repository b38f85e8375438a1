"""Blocks of complete lines of a JSONL file, plain or gzipped, and where the file is torn."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from blip2cli.convert.base import read_errors
from blip2cli.errors import SourceError, option
from blip2cli.sources.records import json_object

BLOCK_BYTES = 8 << 20
MAX_LINE_BYTES = 1 << 28  # a longer line is no row, and would fill the memory
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class LineBlock:
    """Some complete lines."""

    data: bytes
    offset: int  # of the first byte in the file, or in its decompressed content
    line: int  # the number of the first line, from 1


class LineBlocks:
    """Yields the blocks of one file."""

    def __init__(self, path: str, block_bytes: int = BLOCK_BYTES) -> None:
        self.path = path
        self.compressed = path.lower().endswith(".gz")
        self.position = 0  # in the file as it is on disk
        self._block_bytes = block_bytes

    def __iter__(self) -> Iterator[LineBlock]:
        with read_errors(self.path), open(self.path, "rb") as raw:
            file = cast("BinaryIO", gzip.GzipFile(fileobj=raw)) if self.compressed else raw
            with closing(file):
                yield from self._blocks(file, raw)

    def _blocks(self, file: BinaryIO, raw: BinaryIO) -> Iterator[LineBlock]:
        rest, offset, line = b"", 0, 1
        while True:
            try:
                chunk = file.read(self._block_bytes)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise self._torn(offset, line, f"the gzip stream breaks off: {error}") from None
            self.position = raw.tell()
            if not offset and not rest:
                if chunk[:2] in _UTF16:
                    raise SourceError(
                        "sources", f"{self.path!r} is UTF-16 text", "save it as UTF-8"
                    )
                if chunk.startswith(codecs.BOM_UTF8):
                    offset, chunk = 3, chunk[3:]
            if not chunk:
                break
            cut = chunk.rfind(b"\n") + 1
            if not cut:
                rest += chunk
                if len(rest) > MAX_LINE_BYTES:
                    problem = f"{self.path!r}, line {line}: it is over 256 MiB long"
                    raise SourceError("sources", problem)
                continue
            data = rest + chunk[:cut]
            rest = chunk[cut:]
            yield LineBlock(data, offset, line)
            offset += len(data)
            line += data.count(b"\n")
        if rest.strip():
            yield self._last_line(rest, offset, line)

    def _last_line(self, rest: bytes, offset: int, line: int) -> LineBlock:
        """The last line, which has no newline: complete if it is JSON, else torn."""
        try:
            json.loads(rest.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError):
            raise self._torn(offset, line, "it ends in the middle of a row") from None
        return LineBlock(rest + b"\n", offset, line)

    def _torn(self, offset: int, line: int, how: str) -> SourceError:
        if self.compressed:
            command = f"gzip -dc {self.path} 2>/dev/null | head -c {offset}"
        else:
            command = f"truncate -s {offset} {self.path}"
        where = f"byte {offset}{' of its content' if self.compressed else ''}"
        return SourceError(
            "sources",
            f"{self.path!r} is torn at line {line}, which begins at {where} ({how})",
            f"let the run that wrote it go on with {option('resume')}, or keep what is whole with "
            f"'{command}'",
        )


def parse_rows(block: LineBlock, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a block one by one, with their line numbers; empty lines are skipped."""
    offset = block.offset
    for number, raw in enumerate(block.data.split(b"\n")[:-1], block.line):
        text = raw.decode("utf-8", "surrogateescape")
        if text.strip():
            try:
                row = json_object(text)
            except ValueError as error:
                raise SourceError(
                    "sources",
                    f"{path!r}, line {number} (at byte {offset}): {error}",
                    "correct or remove the line; every line is one row",
                ) from None
            yield number, row
        offset += len(raw) + 1
