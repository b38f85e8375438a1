"""The first directory of a TIFF file, read without Pillow: what it holds, and where that ends.

Numbers of tags: TIFF 6.0, sections 3 to 22, and Adobe's DNG specification.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain

WIDTH, LENGTH, BITS, COMPRESSION, PHOTOMETRIC = 256, 257, 258, 259, 262
STRIP_OFFSETS, SAMPLES, STRIP_ROWS, STRIP_BYTES = 273, 277, 278, 279
PLANES, EXTRA_SAMPLES = 284, 338
TILE_WIDTH, TILE_LENGTH, TILE_OFFSETS, TILE_BYTES = 322, 323, 324, 325
SUBFILE, MAKE, SUB_DIRECTORIES, SAMPLE_FORMAT, DNG = 254, 271, 330, 339, 50706
_CODES = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}  # types of whole numbers
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_SIZES |= {16: 8, 17: 8, 18: 8}
# Values of SampleFormat and of PhotometricInterpretation, for messages.
_FORMATS = {1: "whole numbers", 2: "signed numbers", 3: "floating-point numbers", 5: "complex"}
_FORMATS |= {6: "complex numbers"}
_COLOURS = {0: "grey", 1: "grey", 2: "RGB", 3: "palette", 4: "mask", 5: "CMYK", 6: "YCbCr"}
_COLOURS |= {8: "Lab", 9: "Lab", 10: "Lab", 32844: "LogL", 32845: "LogLuv"}
_RAW_COLOURS = (32803, 34892)  # colour filter array, linear raw
_MAX_VALUES = 1 << 20


@dataclass(frozen=True)
class Directory:
    """Tags with whole numbers, by number, and where each tag's entry stands in the file."""

    byte_order: str  # "<" or ">", as ``struct`` has it
    values: dict[int, tuple[int, ...]]
    tags: frozenset[int]  # all there are, of whatever type
    places: dict[int, tuple[int, str]]  # where a value stands and its ``struct`` code, by tag
    cut: bool  # the directory, or a value of it, lies beyond the end of the file

    def first(self, tag: int, default: int) -> int:
        """The first value of ``tag``."""
        return (self.values.get(tag) or (default,))[0]


def read_directory(data: bytes) -> Directory | None:
    """The first directory; None where the header leads to none."""
    order = "<" if data[:2] == b"II" else ">"
    big = 43 in data[2:4]
    start, count, entry, inline = (8, "Q", "HHQ8s", 8) if big else (4, "H", "HHI4s", 4)
    try:
        (at,) = struct.unpack_from(order + ("Q" if big else "I"), data, start)
        (tags,) = struct.unpack_from(order + count, data, at)
    except (struct.error, OverflowError):
        return None
    first = at + struct.calcsize(order + count)
    values: dict[int, tuple[int, ...]] = {}
    places: dict[int, tuple[int, str]] = {}
    cut = False
    step = 12 + 8 * big
    for at in range(first, first + min(tags, 1 << 16) * step, step):
        try:
            tag, kind, number, field = struct.unpack_from(order + entry, data, at)
        except struct.error:
            cut = True
            break
        size = number * _SIZES.get(kind, 1)
        place = at + (12 if big else 8)
        if size > inline:
            (place,) = struct.unpack(order + ("Q" if big else "I"), field)
        if place + size > len(data):
            cut = True
        elif tag not in places and kind in _CODES and number <= _MAX_VALUES:
            values[tag] = struct.unpack_from(f"{order}{number}{_CODES[kind]}", data, place)
        places.setdefault(tag, (place, _CODES.get(kind, "")))
    return Directory(order, values, frozenset(places), places, cut)


def strips(directory: Directory) -> int:
    """How many strips or tiles there are, at most ``_MAX_VALUES``."""
    for tag in (STRIP_OFFSETS, TILE_OFFSETS):
        if tag in directory.tags and not directory.cut:
            return len(directory.values.get(tag, range(_MAX_VALUES)))
    return 0


def largest_strip(directory: Directory) -> int:
    """Bytes of the largest strip or tile when unpacked."""
    width, length = directory.first(WIDTH, 0), directory.first(LENGTH, 0)
    if TILE_WIDTH in directory.tags:
        width, length = directory.first(TILE_WIDTH, 0), directory.first(TILE_LENGTH, 0)
    else:
        length = min(length, directory.first(STRIP_ROWS, length))
    bits = directory.values.get(BITS, (1,))
    return width * length * max(directory.first(SAMPLES, 1), len(bits)) * max(bits) // 8


def pixels_are_cut(data: bytes, directory: Directory) -> bool:
    """True when strips or tiles lie beyond the end of the file."""
    if directory.cut:
        return True
    starts = (directory.values.get(tag, ()) for tag in (STRIP_OFFSETS, TILE_OFFSETS))
    if any(start >= len(data) for start in chain(*starts)):
        return True
    return any(start + size > len(data) for start, size in places(directory))


def places(directory: Directory) -> Iterator[tuple[int, int]]:
    """Offset and length of each strip and tile."""
    for offsets, lengths in ((STRIP_OFFSETS, STRIP_BYTES), (TILE_OFFSETS, TILE_BYTES)):
        starts, sizes = (directory.values.get(tag, ()) for tag in (offsets, lengths))
        yield from zip(starts, sizes, strict=False)


def is_camera_raw(data: bytes, directory: Directory) -> bool:
    """True for raw files of cameras, whose first directory is a thumbnail or unfinished pixels."""
    if DNG in directory.tags or directory.first(PHOTOMETRIC, 1) in _RAW_COLOURS:
        return True
    if data[8:10] == b"CR":
        return True
    small = directory.first(SUBFILE, 0) & 1
    return bool(small) and {MAKE, SUB_DIRECTORIES} <= directory.tags


def description(directory: Directory) -> str | None:
    """What is in a whole directory, such as ``RGB, 3 x 32 bit floating-point numbers``."""
    if directory.cut or not {WIDTH, LENGTH} <= set(directory.values):
        return None
    if not directory.values.keys() & {STRIP_OFFSETS, TILE_OFFSETS}:
        return None
    bits = directory.values.get(BITS, (1,))
    samples = directory.first(SAMPLES, len(bits))
    colour = directory.first(PHOTOMETRIC, 0)
    numbers = directory.first(SAMPLE_FORMAT, 1)
    if not (0 < samples < 1 << 16 and max(bits) in range(1, 129)):
        return None
    return (
        f"{_COLOURS.get(colour, f'colour model {colour}')}, {samples} x {max(bits)} bit "
        f"{_FORMATS.get(numbers, f'numbers of kind {numbers}')}, "
        f"compression {directory.first(COMPRESSION, 1)}"
    )
