"""Pictures of at most some megabytes that would cost minutes or gigabytes.

Each is here because Pillow 13.0, left to itself, steps through it in Python, in a time that grows
with the square of something, or unpacks it to more than a gigabyte.
"""

from __future__ import annotations

import math
import random
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache, partial
from typing import Any

from PIL import Image

from tests.images.helpers import Made
from tests.images.pictures import encoded, png_chunk
from tests.torture.mutants import mutate, right_checksums

PNG = b"\x89PNG\r\n\x1a\n"


def segment(marker: int, body: bytes) -> bytes:
    """One segment of a JPEG file."""
    return b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body


def scan(component: int = 1, first: int = 0, last: int = 63) -> bytes:
    """The header of a scan."""
    return segment(0xDA, bytes([1, component, 0, first, last, 0]))


def jpeg(
    side: int, scans: bytes, marker: int = 0xC2, colours: int = 1, before: bytes = b""
) -> bytes:
    """A JPEG whose Huffman tables have one code: an empty block, or a run of empty ones."""
    layers = b"".join(bytes([number + 1, 0x11, 0]) for number in range(colours))
    frame = struct.pack(">BHHB", 8, side, side, colours) + layers
    tables = segment(0xDB, b"\0" + b"\1" * 64)
    codes = segment(0xC4, b"\x00\1" + bytes(16)) + segment(0xC4, b"\x10\1" + bytes(15) + b"\xe0")
    return b"\xff\xd8" + before + tables + segment(marker, frame) + codes + scans + b"\xff\xd9"


def progressive(side: int, scans: int, marker: int = 0xC2) -> bytes:
    """One scan of the means, then many empty ones of the rest."""
    blocks = ((side + 7) // 8) ** 2
    bits = ("0" + "1" * 14) * math.ceil(blocks / 32767)
    bits += "1" * (-len(bits) % 8)
    runs = int(bits, 2).to_bytes(len(bits) // 8, "big").replace(b"\xff", b"\xff\0")
    means = scan(1, 0, 0) + bytes((blocks + 7) // 8)
    return jpeg(side, means + (scan(1, 1) + runs) * scans, marker)


def png(
    width: int, height: int, depth: int, colours: int, body: bytes, before: bytes = b""
) -> bytes:
    """A PNG file; ``colours`` as in its header: 0 grey, 2 RGB, 4 grey with alpha, 6 RGBA."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0))
    return PNG + header + before + png_chunk(b"IDAT", body) + png_chunk(b"IEND", b"")


@cache
def zeros(size: int) -> bytes:
    """``size`` zero bytes, deflated."""
    deflate = zlib.compressobj(9)
    block = bytes(1 << 24)
    pieces = [deflate.compress(block[: size - at]) for at in range(0, size, len(block))]
    return b"".join(pieces) + deflate.flush()


def clear(side: int, depth: int = 8, colours: int = 6) -> bytes:
    """A PNG of one colour."""
    row = 1 + side * depth // 8 * {0: 1, 2: 3, 4: 2, 6: 4}[colours]
    return png(side, side, depth, colours, zeros(side * row))


def tiff(tags: dict[int, tuple[int, int, int]], data: bytes = b"") -> bytes:
    """A TIFF of these tags (type, count, value), with ``data`` behind the directory."""
    entries = b"".join(struct.pack("<HHII", tag, *tags[tag]) for tag in sorted(tags))
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4) + data


def grey_tags(
    width: int, height: int, compression: int, more: dict[int, tuple[int, int, int]]
) -> dict[int, tuple[int, int, int]]:
    """The tags that a greyscale TIFF has at least, and ``more``."""
    tags = {256: (4, 1, width), 257: (4, 1, height), 258: (3, 1, 8), 259: (3, 1, compression)}
    return tags | {262: (3, 1, 1), 277: (3, 1, 1)} | more


def run_lengths(width: int, height: int, runs: bytes) -> bytes:
    """A BMP of 8 bits with run lengths."""
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, 8, 1, len(runs), 0, 0, 256, 0)
    return b"BM" + struct.pack("<IHHI", 1078 + len(runs), 0, 0, 1078) + header + bytes(1024) + runs


def icon(inside: bytes, entries: int = 1) -> bytes:
    """An icon that says it is small."""
    entry = struct.pack("<BBBBHHII", 31, 17, 0, 0, 1, 24, len(inside), 6 + 16 * entries)
    return struct.pack("<HHH", 0, 1, entries) + entry * entries + inside


def _strips(count: int) -> bytes:
    where = (4, count, 122)
    return tiff(grey_tags(1, count, 1, {273: where, 278: (4, 1, 1), 279: where}), bytes(4 * count))


def _huge_tile() -> bytes:
    side = (4, 1, 40_000)
    where = {324: (4, 1, 134), 325: (4, 1, 1_600_000)}
    return tiff(grey_tags(16, 16, 8, {322: side, 323: side} | where), zeros(1_600_000))


def _floats() -> bytes:
    more = {258: (3, 1, 32), 273: (4, 1, 146), 278: (4, 1, 16), 279: (4, 1, 99), 339: (3, 1, 3)}
    return tiff(grey_tags(13_000, 13_000, 8, more), zeros(1 << 20))


def _scans_in_tiff() -> bytes:
    inside = progressive(8000, 2000)
    where = {273: (4, 1, 122), 278: (4, 1, 8000), 279: (4, 1, len(inside))}
    return tiff(grey_tags(8000, 8000, 7, where), inside)


def _flat(mode: str, side: int, kind: str, **options: Any) -> bytes:
    return encoded(Image.new(mode, (side, side)), kind, **options)


_ARITHMETIC = 0xCA
_END = scan() + bytes(9)  # data of a picture of 16 by 16 pixels
_FLAT_TIFF: dict[str, Any] = {"compression": "tiff_adobe_deflate"}
# What is refused, and with which name.
REFUSED: dict[str, tuple[str, Callable[[], bytes]]] = {
    "JPEG, 1000 scans": ("too_large", lambda: progressive(13_000, 1000)),
    "JPEG, 1001 scans, small": ("too_large", lambda: progressive(100, 1001)),
    "JPEG, scans without data": (
        "too_large",
        lambda: jpeg(8000, scan(1, 0, 0) + b"\0" + scan(1, 1) * 70_000),
    ),
    "JPEG, colours again and again": (
        "too_large",
        lambda: jpeg(7000, (scan() + b"\0") * 70_000, 0xC0, 3),
    ),
    "JPEG, arithmetic scans": (
        "too_large",
        lambda: jpeg(
            8000, scan(1, 0, 0) + bytes(99) + (scan(1, 1) + bytes(999)) * 300, _ARITHMETIC
        ),
    ),
    "JPEG, coefficients of 169 million pixels": ("too_large", lambda: progressive(13_000, 5)),
    "JPEG, empty segments": (
        "too_large",
        lambda: jpeg(16, _END, 0xC0, before=b"\xff\xe5\0\2" * 600_000),
    ),
    "JPEG, filled with 0xff": (
        "too_large",
        lambda: jpeg(16, _END, 0xC0, before=b"\xff" * 3_000_000),
    ),
    "JPEG, filled with zeros": (
        "too_large",
        lambda: jpeg(16, _END, 0xC0, before=segment(0xE5, b"") + bytes(3_000_000)),
    ),
    "JPEG, EXIF blocks": (
        "too_large",
        lambda: jpeg(16, _END, 0xC0, before=segment(0xE1, b"Exif\0\0" + bytes(65_000)) * 300),
    ),
    "PNG, RGBA": ("too_large", lambda: png(13_000, 13_000, 8, 6, zeros(1 << 20))),
    "PNG, empty chunks": (
        "too_large",
        lambda: png(1, 1, 8, 2, zlib.compress(b"\0abc"), png_chunk(b"teSt", b"") * 300_000),
    ),
    "PNG, empty data": (
        "too_large",
        lambda: png(1, 1, 8, 2, b"", png_chunk(b"IDAT", b"") * 300_000),
    ),
    "GIF, a comment byte by byte": (
        "too_large",
        lambda: b"GIF89a\1\0\1\0\0\0\0!\xfe" + b"\1a" * 900_000 + b"\0;",
    ),
    "GIF, empty extensions": (
        "too_large",
        lambda: b"GIF89a\1\0\1\0\0\0\0" + b"!\xf9\0" * 600_000 + b";",
    ),
    "WebP, RGB": (
        "too_large",
        lambda: _flat("RGB", 8_200, "WEBP", lossless=True, method=0, quality=0),
    ),
    "AVIF, RGBA": ("too_large", lambda: _flat("RGBA", 7_200, "AVIF", speed=10)),
    "JPEG 2000, one tile": ("too_large", lambda: _flat("RGBA", 6_700, "JPEG2000")),
    "JPEG 2000, empty boxes": (
        "too_large",
        lambda: b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0\0\0\x08free" * 300_000,
    ),
    "QOI": (
        "too_large",
        lambda: (
            b"qoif"
            + struct.pack(">II", 5000, 5000)
            + b"\3\0"
            + b"\xfd" * 410_000
            + b"\0\0\0\0\0\0\0\1"
        ),
    ),
    "BMP, run lengths": (
        "too_large",
        lambda: run_lengths(1_000_000, 100, b"\1\5\0\0" * 100 + b"\0\1"),
    ),
    "TIFF, floats": ("too_large", _floats),
    "TIFF, a million strips": ("too_large", lambda: _strips(1_000_000)),
    "TIFF, a tile of 1.6 GB": ("too_large", _huge_tile),
    "TIFF, a JPEG of 2000 scans": ("too_large", _scans_in_tiff),
    "ICO, a large PNG": ("too_large", lambda: icon(png(9000, 9000, 8, 6, zeros(1 << 20)))),
    "Netpbm, 150 million digits": ("too_large", lambda: b"P2 12500 12500 9\n1 2 3"),
    "Netpbm, comments in the header": (
        "too_large",
        lambda: b"P6 " + b"#\n" * 600_000 + b"1 1 255\nabc",
    ),
    "Netpbm, comments": (
        "truncated",
        lambda: b"P3 1000 1000 255\n" + b"#\n" * 1_000_000 + b"1 2 3 ",
    ),
}
# What is decoded, at the edge of what is.
DECODED: dict[str, Callable[[], bytes]] = {
    "JPEG, 150 scans": partial(progressive, 8000, 150),
    "JPEG, 150 arithmetic scans": lambda: jpeg(
        8000, scan(1, 0, 0) + bytes(9999) + (scan(1, 1) + bytes(9000)) * 150, _ARITHMETIC
    ),
    "PNG, RGBA of 121 million pixels": partial(clear, 11_000),
    "PNG, 16 bits, RGBA": partial(clear, 11_000, 16),
    "PNG, grey of 16 bits": partial(clear, 13_000, 16, 0),
    "PNG, a side of a million pixels": lambda: png(
        1 << 20, 100, 8, 2, zeros(100 * (3 * (1 << 20) + 1))
    ),
    "PNG, texts": lambda: png(
        1,
        1,
        8,
        2,
        zlib.compress(b"\0abc"),
        b"".join(png_chunk(b"zTXt", b"C%d\0\0" % n + zeros(1_000_000)) for n in range(900)),
    ),
    "GIF": lambda: _flat("L", 13_000, "GIF"),
    "JPEG 2000": lambda: _flat("RGB", 7_000, "JPEG2000"),
    "QOI": lambda: (
        b"qoif" + struct.pack(">II", 3162, 3162) + b"\3\0" + bytes(9_998_244) + b"\0\0\0\0\0\0\0\1"
    ),
    "BMP, run lengths": lambda: run_lengths(1_000_000, 16, b"\1\5\0\0" * 16 + b"\0\1"),
    "TIFF, floats": lambda: _flat("F", 11_000, "TIFF", **_FLAT_TIFF),
    "TIFF, Lab": lambda: _flat("LAB", 11_000, "TIFF", **_FLAT_TIFF),
    "Netpbm, digits": lambda: b"P3 2000 2000 255\n" + b"1 " * 12_000_000,
    "Netpbm, a comment for each digit": lambda: b"P1 1000 1000\n" + b"#1\n0" * 1_000_000,
}


def bombs() -> Iterator[Made]:
    """All of them, made one by one."""
    for name, (_, make) in REFUSED.items():
        yield Made(f"{name} (refused)", "", data=make())
    for name, make_edge in DECODED.items():
        yield Made(f"{name} (decoded)", "", data=make_edge())


def bomb_mutants(count: int, seed: int) -> Iterator[Made]:
    """``count`` mutants of those up to four megabytes."""
    stock = {ref.file_name: ref.data for ref in bombs() if len(ref.data) < 4_000_000}
    names = list(stock)
    for number in range(count):
        name = names[number % len(names)]
        data = mutate(stock[name], random.Random(f"{seed}/{number}"), stock)
        if number % 2 and data.startswith(PNG):
            right_checksums(data)
        yield Made(f"{name} mutant {seed}/{number}", "", data=bytes(data))
