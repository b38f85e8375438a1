"""Small valid images of every format, truncated at every byte or mutated at random."""

from __future__ import annotations

import random
import zlib
from collections.abc import Iterable, Iterator

import numpy as np
from PIL import Image

from blip2cli.images.decode import FORMATS
from tests.images.helpers import Made
from tests.images.pictures import encoded

Stock = dict[str, bytes]


def seeds() -> Stock:
    """Small valid images: first one of each of ``FORMATS``, by that name, then variants."""
    x, y = np.meshgrid(np.arange(12), np.arange(9))
    rgb = Image.fromarray(np.stack([x * 20, y * 28, x * y], -1).astype(np.uint8))
    alpha = rgb.copy()
    alpha.putalpha(Image.fromarray((x * 21).astype(np.uint8)))
    wide = Image.fromarray((x * y * 600).astype(np.uint16))
    frames = [rgb, rgb.transpose(Image.Transpose.ROTATE_180)]
    exif = Image.Exif()
    exif[0x0112] = 5
    many = {"save_all": True, "append_images": frames}
    sizes = {"ICO": {"sizes": [(12, 9)]}}  # by default Pillow 12 writes none below 16 pixels
    one_each = {kind: encoded(rgb, kind, **sizes.get(kind, {})) for kind in FORMATS}
    return one_each | {
        "JPEG progressive": encoded(rgb, "JPEG", progressive=True, exif=exif),
        "JPEG CMYK": encoded(rgb.convert("CMYK"), "JPEG"),
        "PNG alpha": encoded(alpha, "PNG", exif=exif),
        "PNG 16 bit": encoded(wide, "PNG"),
        "PNG palette": encoded(rgb.quantize(16), "PNG", transparency=bytes([0, 9, 99])),
        "PNG animated": encoded(rgb, "PNG", **many),
        "GIF animated": encoded(rgb, "GIF", **many),
        "WEBP lossless": encoded(alpha, "WEBP", lossless=True),
        "WEBP animated": encoded(rgb, "WEBP", **many),
        "AVIF alpha": encoded(alpha, "AVIF"),
        "TIFF pages": encoded(rgb, "TIFF", **many),
        "TIFF LZW": encoded(rgb, "TIFF", compression="tiff_lzw"),
        "TIFF Deflate": encoded(wide, "TIFF", compression="tiff_deflate"),
        "TIFF JPEG": encoded(rgb, "TIFF", compression="jpeg"),
        "TIFF fax": encoded(rgb.convert("1"), "TIFF", compression="group4"),
        "BMP palette": encoded(rgb.quantize(16), "BMP"),
        "JPEG2000 alpha": encoded(alpha, "JPEG2000"),
        "PPM 16 bit": b"P5 12 9 65535\n" + np.asarray(wide).astype(">u2").tobytes(),
        "PPM text": b"P3 2 2 255\n1 2 3 4 5 6 7 8 9 10 11 12\n",
        "ICO large": encoded(alpha, "ICO", sizes=[(12, 9), (8, 6)]),
    }


def prefixes(kinds: Iterable[str], step: int = 1) -> Iterator[Made]:
    """Every ``step``-th prefix of the seeds of these names, the whole image last."""
    for kind in kinds:
        data = seeds()[kind]
        for length in (*range(0, len(data), step), len(data)):
            yield Made(f"{kind} cut at {length}", "", data=data[:length])


def mutants(count: int, seed: int) -> Iterator[Made]:
    """``count`` mutants; a mutant depends on ``seed`` and its number only."""
    stock = seeds()
    kinds = list(stock)
    for number in range(count):
        kind = kinds[number % len(kinds)]
        draw = random.Random(f"{seed}/{number}")
        data = mutate(stock[kind], draw, stock)
        if number % 2 and data.startswith(b"\x89PNG\r\n\x1a\n"):
            right_checksums(data)
        yield Made(f"{kind} mutant {seed}/{number}", "", data=bytes(data))


def mutate(data: bytes, draw: random.Random, stock: Stock) -> bytearray:
    """``data`` with one to four changes; slices of others come from ``stock``."""
    changed = bytearray(data)
    for _ in range(draw.choice((1, 1, 2, 4))):
        draw.choice(_MUTATIONS)(changed, draw, stock)
    return changed


def _bytes(data: bytearray, draw: random.Random, _: Stock) -> None:
    for _n in range(draw.randint(1, 8)):
        if data:
            data[draw.randrange(len(data))] = draw.randrange(256)


def _bit(data: bytearray, draw: random.Random, _: Stock) -> None:
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _length(data: bytearray, draw: random.Random, _: Stock) -> None:
    """Set two or four bytes, mostly near the start, where the length fields are, to an extreme."""
    width = draw.choice((2, 4))
    if len(data) > width:
        top = (1 << 8 * width) - 1
        value = draw.choice((0, 1, 2, 0x7F, top >> 1, (top >> 1) + 1, top - 1, top, len(data)))
        end = len(data) - width
        place = draw.randint(0, min(end, draw.choice((64, end))))
        data[place : place + width] = (value & top).to_bytes(width, draw.choice(("big", "little")))


def _splice(data: bytearray, draw: random.Random, stock: Stock) -> None:
    """Put a slice of this or another image in, replacing bytes or inserted between them."""
    other = stock[draw.choice(list(stock))] if draw.random() < 0.5 else bytes(data)
    start = draw.randint(0, len(other))
    piece = other[start : start + draw.randint(1, 64)]
    place = draw.randint(0, len(data))
    data[place : place + draw.choice((0, len(piece)))] = piece


def _cut(data: bytearray, draw: random.Random, _: Stock) -> None:
    """Cut the end off, or a piece out."""
    place = draw.randint(0, len(data))
    del data[place : draw.choice((len(data), place + draw.randint(1, 32)))]


_MUTATIONS = (_bytes, _bit, _length, _splice, _cut)


def right_checksums(png: bytearray) -> None:
    """Make the checksums of a PNG file right again."""
    place = 8
    while place + 12 <= len(png):
        end = place + 8 + int.from_bytes(png[place : place + 4], "big")
        if end + 4 > len(png):
            return
        png[end : end + 4] = zlib.crc32(png[place + 4 : end]).to_bytes(4, "big")
        place = end + 4
