"""The sound rows of a damaged source, and what was left out.

Where an image has several rows, all of those around the damage go: an image has all its rows or
none, so that a run which goes on with the result makes them again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice

import pyarrow as pa

from blip2cli.convert.arrow import Array, pc
from blip2cli.convert.examples import Examples
from blip2cli.convert.line_blocks import BLOCK_BYTES, LineBlock
from blip2cli.sinks.jsonl_lines import JsonlLines, Piece, sound_pieces
from blip2cli.sinks.jsonl_rows import RowParser
from blip2cli.sources.records import json_object

_SEVERAL = {"question", "text"}  # columns of rows of which an image has several


class DamagedPlaces(Examples):
    """Damaged places of a source."""

    sound_until: int | None = None  # rows before the first one

    def found(self, place: str, rows: int) -> None:
        """Add a place that ``rows`` come before."""
        self.add(place)
        if self.sound_until is None:
            self.sound_until = rows

    def notes(self) -> list[str]:
        """A sentence that says so; none where nothing was left out."""
        count = f"{self.count} damaged place{'s' if self.count > 1 else ''}"
        return [f"Left out {count}: {self}."] if self.count else []


class SoundBlocks:
    """Blocks of the sound lines of a JSONL file; None stands for what is left out."""

    def __init__(self, path: str, ours: bool, block_bytes: int = BLOCK_BYTES) -> None:
        """Rows of our own (``ours``) all have the same columns; rows of others need not."""
        self.damage = DamagedPlaces()
        self.position = 0
        self._path, self._ours, self._block_bytes = path, ours, block_bytes

    def __iter__(self) -> Iterator[LineBlock | None]:
        self.damage = DamagedPlaces()
        pieces, places = sound_pieces(self._path)
        is_row = self._usual_row(pieces) if self._ours else _is_object
        line = 1
        for start, stop in pieces:
            if start:
                self.damage.found(places.pop(0), line - 1)
                yield None
            lines = JsonlLines(self._path, start, stop)
            sound: list[bytes] = []
            size, first = 0, line
            for number, raw in enumerate(lines, line):
                good = not raw.strip() or is_row(raw)
                if good:
                    first = first if sound else number
                    sound.append(raw)
                    size += len(raw)
                else:
                    self.damage.found(f"line {number} is no row", number - 1)
                if sound and (not good or size >= self._block_bytes):
                    yield LineBlock(b"".join(sound), 0, first)
                    sound, size = [], 0
                if not good:
                    yield None
            if sound:
                yield LineBlock(b"".join(sound), 0, first)
            line += lines.count
            if lines.rest:
                self.damage.found(f"line {line} is torn", line - 1)
                yield None
        for place in places:
            self.damage.found(place, line - 1)
            yield None

    def _usual_row(self, pieces: list[Piece]) -> Callable[[bytes], bool]:
        """What tells the rows: they have the columns that most of the first ones have."""
        lines = (raw for start, stop in pieces for raw in JsonlLines(self._path, start, stop))
        usual = Counter(
            (tuple(json_object(raw.decode())), raw) for raw in islice(lines, 100) if _is_object(raw)
        )
        columns = Counter(names for names, _ in usual)
        first = next((raw for names, raw in usual if names == columns.most_common(1)[0][0]), b"")
        parser = RowParser(first, unnamed="")
        return lambda line: parser.key(line) is not None


def _is_object(line: bytes) -> bool:
    try:
        json_object(line.decode("utf-8"))
    except ValueError:
        return False
    return True


def whole_images(batches: Iterator[pa.RecordBatch | None]) -> Iterator[pa.RecordBatch]:
    """The batches without the images that lost rows where None stands among them."""
    last: pa.RecordBatch | None = None  # the rows of the last image so far
    torn = False
    for batch in batches:
        if batch is None:
            last, torn = None, True
            continue
        if not batch.num_rows:  # of blank lines
            continue
        if not ("file_name" in batch.schema.names and _SEVERAL & set(batch.schema.names)):
            yield batch
            continue
        if torn:
            batch = batch.filter(pc.invert(_image_of_row(batch, 0)))
        torn = torn and not batch.num_rows
        if last is not None:
            batch = concat([last, batch])
        if batch.num_rows:
            of_last = _image_of_row(batch, -1)
            last = batch.filter(of_last)
            yield batch.filter(pc.invert(of_last))
    if last is not None:
        yield last


def concat(batches: list[pa.RecordBatch]) -> pa.RecordBatch:
    """One batch of the rows of all."""
    return pa.Table.from_batches(batches).combine_chunks().to_batches()[0]


def _image_of_row(batch: pa.RecordBatch, index: int) -> Array:
    """Which rows are of the image that this row is of."""
    names = batch.column("file_name")
    return pc.fill_null(pc.equal(names, names[index]), False)
