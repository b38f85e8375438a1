"""The whole lines of a JSONL file, plain or gzipped, in blocks; and where it is torn."""

from __future__ import annotations

import codecs
import gzip
import json
import zlib
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

from blip2cli.convert.formats.base import reading
from blip2cli.errors import SourceError

BLOCK_BYTES = 8 << 20
MAX_LINE_BYTES = 1 << 28  # a longer line is no row, and would fill the memory
_UTF16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclass(frozen=True)
class Block:
    """Some whole lines."""

    data: bytes
    offset: int  # of the first byte in the file, or in its unpacked content
    line: int  # the number of the first line, from 1


class Blocks:
    """Yields the blocks of one file."""

    def __init__(self, path: str, block_bytes: int = BLOCK_BYTES) -> None:
        self.path = path
        self.packed = path.lower().endswith(".gz")
        self.position = 0  # in the file as it is on disk
        self._block_bytes = block_bytes

    def __iter__(self) -> Iterator[Block]:
        with reading(self.path), open(self.path, "rb") as below:
            file = cast("BinaryIO", gzip.GzipFile(fileobj=below)) if self.packed else below
            with closing(file):
                yield from self._blocks(file, below)

    def _blocks(self, file: BinaryIO, below: BinaryIO) -> Iterator[Block]:
        rest, offset, line = b"", 0, 1
        while True:
            try:
                chunk = file.read(self._block_bytes)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise self._torn(offset, line, f"the gzip stream breaks off: {error}") from None
            self.position = below.tell()
            if not offset and not rest:
                if chunk[:2] in _UTF16:
                    raise SourceError(f"{self.path!r} is UTF-16 text; save it as UTF-8.")
                if chunk.startswith(codecs.BOM_UTF8):
                    offset, chunk = 3, chunk[3:]
            if not chunk:
                break
            cut = chunk.rfind(b"\n") + 1
            if not cut:
                rest += chunk
                if len(rest) > MAX_LINE_BYTES:
                    raise SourceError(f"{self.path!r}, line {line}: it is over 256 MiB long.")
                continue
            data = rest + chunk[:cut]
            rest = chunk[cut:]
            yield Block(data, offset, line)
            offset += len(data)
            line += data.count(b"\n")
        if rest.strip():
            yield self._tail(rest, offset, line)

    def _tail(self, rest: bytes, offset: int, line: int) -> Block:
        """The last line, which has no newline: whole if it is JSON, else torn."""
        try:
            json.loads(rest.decode("utf-8", "surrogateescape"))
        except (ValueError, RecursionError):
            raise self._torn(offset, line, "it ends in the middle of a row") from None
        return Block(rest + b"\n", offset, line)

    def _torn(self, offset: int, line: int, how: str) -> SourceError:
        cut = (
            f"gzip -dc {self.path} 2>/dev/null | head -c {offset}"
            if self.packed
            else (f"truncate -s {offset} {self.path}")
        )
        where = f"byte {offset}{' of its content' if self.packed else ''}"
        return SourceError(
            f"{self.path!r} is torn at line {line}, which begins at {where} ({how}); let the run "
            f"that wrote it go on with --resume, or keep what is whole: {cut}"
        )


def objects(block: Block, path: str) -> Iterator[tuple[int, dict[str, Any]]]:
    """The rows of a block one by one, with their line numbers; empty lines are passed over."""
    offset = block.offset
    for number, raw in enumerate(block.data.split(b"\n")[:-1], block.line):
        text = raw.decode("utf-8", "surrogateescape")
        if text.strip():
            try:
                value = json.loads(text)
            except json.JSONDecodeError as error:
                raise SourceError(
                    f"{path!r}, line {number} (at byte {offset}): not JSON ({error.msg} at column "
                    f"{error.colno}); mend or remove the line."
                ) from None
            except (ValueError, RecursionError) as error:  # too many digits, deep nesting
                raise SourceError(
                    f"{path!r}, line {number} (at byte {offset}): not to be read as JSON ({error})."
                ) from None
            if not isinstance(value, dict):
                raise SourceError(
                    f"{path!r}, line {number}: expected an object, found {text.strip()[:40]}"
                    "; every line is one row."
                )
            yield number, value
        offset += len(raw) + 1
