"""Limits of what decoding one image may cost, in memory and in steps.

They are the same in every process, so that rows do not depend on where an image is decoded. The
time limit of workers (``load_image.time_limit``) is for what nobody foresaw. ``sources/file_size``
limits the size of files, before they are read.

``MAX_BYTES`` is what Pillow, the codec and the conversion to RGB hold at the peak, beside the file
itself. The figures were measured with Pillow 13.0: peak resident memory a pixel.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from blip2cli.errors import ImageError
from blip2cli.images.jpeg_segments import SOS, segments
from blip2cli.images.tiff_header import (
    COMPRESSION,
    LENGTH,
    SAMPLES,
    WIDTH,
    Directory,
    largest_strip,
    places,
    strips,
)

# Twice Pillow's warning level: there Pillow itself refuses, whose ``Image.MAX_IMAGE_PIXELS`` would
# have to grow with it.
MAX_PIXELS = 178_956_970
# Pillow gathers a line of raw pixels in pieces of 64 KiB, copying what it has each time: a file of
# 264 bytes, an animated WebP of 16,776,972 by 9 pixels, keeps it busy for three minutes.
MAX_SIDE = 1 << 20
MAX_BYTES = 1 << 30  # of memory
# Scans of a JPEG times pixels times colours: 0.7 s of empty scans, or 8 s of arithmetic ones. A
# progressive photograph has 10 scans.
MAX_SCANNED = 10_000_000_000
MAX_SCANS = 1000
# Small blocks (segments, chunks, boxes, strips) before or around the pixels, a microsecond of
# Python each, and bytes of a JPEG's header, whose EXIF blocks are put together one by one.
MAX_BLOCKS = 200_000
MAX_JPEG_HEADER = 16 << 20
_FEW_BYTES = 1 << 20  # no file of this size has too many blocks

# Decoders written in Python, by Pillow's name: pixels that take ten seconds.
_SLOW = {"qoi": 10_000_000, "bmp_rle": 16_777_216}
_MAX_RLE_BYTES = 16 << 20  # and runs of a file of this size four
# Bytes a pixel of a decoded picture, by mode; others have four.
_STORED = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
# Bytes a pixel that a codec holds beside it, by Pillow's name of the format.
_CODECS = {"WEBP": 13.0, "AVIF": 14.0, "QOI": 8.0}
_ICON_SIDE = 4096
_TOO_MANY_SCANS = "It has over {} scans, too many for its size."
_TOO_MANY_BLOCKS = "It has more small blocks than any reader should look at."


def too_many_pixels(start: str) -> ImageError:
    """The error of a picture with more pixels than are read."""
    return ImageError("too_many_pixels", f"{start}, more than the {MAX_PIXELS} that are read.")


def check_memory(
    width: int, height: int, each: float, more: float = 0, most: int = MAX_BYTES
) -> None:
    """Raise ImageError for a picture that is too large, or whose ``each`` bytes a pixel and
    ``more`` are over ``most``."""
    if width * height > MAX_PIXELS:
        raise too_many_pixels(f"It has {width} by {height} pixels")
    if max(width, height) > MAX_SIDE:
        raise ImageError(
            "too_many_pixels", f"It has {width} by {height} pixels; one side may have {MAX_SIDE}."
        )
    need = width * height * each + more
    if need > most:
        raise ImageError(
            "too_large",
            f"Decoding its {width} by {height} pixels takes {math.ceil(need / (1 << 20))} MiB of "
            f"memory, over {most >> 20}.",
        )


def check_blocks(data: bytes) -> None:
    """Raise ImageError ``too_large`` for a file whose blocks take long to step through."""
    if data.startswith(b"\0\0\1\0"):
        _check_icon(data)
    if len(data) <= _FEW_BYTES:
        return
    if data.startswith(b"\xff\xd8"):
        skipped = 0  # Pillow steps over these byte by byte
        for steps, segment in enumerate(segments(data)):
            skipped += segment.skipped
            if steps + skipped > MAX_BLOCKS or segment.start > MAX_JPEG_HEADER:
                raise ImageError("too_large", _TOO_MANY_BLOCKS)
    elif data.startswith(b"\x89PNG"):
        _check_lengths(data, 8, 12)
    elif data.startswith((b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51")):
        _check_lengths(data, 0, 0)
        start = data.find(b"\xff\x4f\xff\x51")
        tile = data.find(b"\xff\x90\0\x0a", start, start + _FEW_BYTES)
        if start >= 0 and tile < 0:  # without a codestream it is cut short
            raise ImageError("too_large", _TOO_MANY_BLOCKS)
    elif data.startswith(b"GIF8"):
        _check_gif(data)


def check_cost(image: Any, data: bytes, largest_strip: int = 0, memory: int = MAX_BYTES) -> None:
    """Raise ImageError for a picture, opened by Pillow, that takes too much time, or more bytes of
    ``memory``.

    ``largest_strip``: bytes of the largest strip or tile of a TIFF, unpacked.
    """
    kind, codec = image.format, image.tile[0][0] if image.tile else ""
    pixels = image.width * image.height
    if codec in _SLOW:
        if pixels > _SLOW[codec]:
            most = f"{_SLOW[codec]} of its kind are decoded in time"
            raise ImageError("too_large", f"It has {pixels} pixels; {most}.")
        if codec == "bmp_rle" and len(data) > _MAX_RLE_BYTES:
            raise ImageError("too_large", f"It is over {_MAX_RLE_BYTES >> 20} MiB of run lengths.")
    more = 0.0
    if kind in ("JPEG", "MPO"):
        more = pixels * _jpeg_coefficients(image, data)
    elif kind == "JPEG2000":
        more = _jpeg_2000_tile(data, pixels)
    elif codec == "libtiff":
        more = largest_strip + len(data)  # it is handed a copy
    stored = _STORED.get(image.mode, 4) + _CODECS.get(kind or "", 0.0)
    check_memory(image.width, image.height, stored + 4 * (image.mode != "RGB"), more, memory)


def check_tiff(data: bytes, directory: Directory) -> int:
    """Raise ImageError ``too_large``; return the bytes of the largest strip, unpacked."""
    count = strips(directory)
    if count > MAX_BLOCKS:
        raise ImageError("too_large", f"It has over {MAX_BLOCKS} strips.")
    if directory.first(COMPRESSION, 1) in (6, 7):
        area = directory.first(WIDTH, 0) * directory.first(LENGTH, 0)
        most = _most_scans(area * directory.first(SAMPLES, 1))
        scans = -count  # one is usual in a strip; those of other pages do not count
        looked_at = 0
        for start, size in places(directory):
            scans += data.count(b"\xff\xda", start, start + size)
            looked_at += size
            # Strips that lie in one another would be looked at again and again.
            if looked_at > 2 * len(data):
                scans = most + 1
        if scans > most:
            raise ImageError("too_large", _TOO_MANY_SCANS.format(most))
    return largest_strip(directory)


def _most_scans(values: int) -> int:
    return min(MAX_SCANS, MAX_SCANNED // max(1, values))


def _check_lengths(data: bytes, at: int, more: int) -> None:
    """Blocks that begin with their length in four bytes, which leaves out ``more`` bytes."""
    for _ in range(MAX_BLOCKS):
        size = int.from_bytes(data[at : at + 4], "big") + more
        at += size
        if at >= len(data) or size < 8:
            return
    raise ImageError("too_large", _TOO_MANY_BLOCKS)


def _check_gif(data: bytes) -> None:
    """Blocks before the first picture."""
    at = 13 + (6 << (data[10] & 7) if data[10] & 0x80 else 0)
    in_extension = False
    for _ in range(MAX_BLOCKS):
        if at >= len(data) or (not in_extension and data[at] != 0x21):
            return
        if not in_extension:
            at, in_extension = at + 2, True
        else:
            in_extension = data[at] != 0
            at += data[at] + 1
    raise ImageError("too_large", _TOO_MANY_BLOCKS)


def _check_icon(data: bytes) -> None:
    """The pictures inside may be larger than the directory says."""
    count = min(int.from_bytes(data[4:6], "little"), (len(data) - 6) // 16)
    for at in range(18, 18 + 16 * count, 16):
        start = int.from_bytes(data[at : at + 4], "little")
        head = data[start : start + 24]
        if head.startswith(b"\x89PNG"):
            sides = [int.from_bytes(head[i : i + 4], "big") for i in (16, 20)]
        elif head.startswith(b"\x28\0\0\0"):  # the length of a bitmap's header
            sides = [int.from_bytes(head[i : i + 4], "little") for i in (4, 8)]
        else:
            continue
        if max(sides) > _ICON_SIDE:
            raise ImageError("too_large", f"An icon may have {_ICON_SIDE} pixels a side.")


def _jpeg_coefficients(image: Any, data: bytes) -> float:
    """Bytes a pixel of the coefficients that several scans are gathered in.

    Raises ImageError ``too_large`` for too many scans.
    """
    count = len(image.layer)
    # Pillow has read up to the data of the first scan, whose header says what is in it.
    header = image.fp.tell() - 8 - 2 * count
    whole = data[header : header + 2] == b"\xff\xda" and data[header + 4] == count
    if whole and "progressive" not in image.info:
        return 0.0
    most = _most_scans(image.width * image.height * count)
    if _pairs(data, 0xDAFF) > most or not whole:
        scans, at = 0, 2
        while True:
            last = None
            for last in segments(data, at, in_scan=at > 2):
                if scans == 0 and last.marker == SOS and data[last.start] == count:
                    whole = True
            if last is None or last.marker != SOS:
                break
            scans, at = scans + 1, last.end
            if whole and "progressive" not in image.info:
                return 0.0
            if scans > most:
                raise ImageError("too_large", _TOO_MANY_SCANS.format(most))
    square = max(down for _, down, _, _ in image.layer) * max(each[2] for each in image.layer)
    blocks = sum(down * along for _, down, along, _ in image.layer)
    return 2.0 * int(blocks) / max(1, int(square))


def _pairs(data: bytes, pair: int) -> int:
    """How often two bytes come one after the other; ``pair`` as a little-endian number."""
    even = np.frombuffer(data, "<u2", len(data) // 2)
    odd = np.frombuffer(data, "<u2", (len(data) - 1) // 2, 1)
    return int(np.count_nonzero(even == pair) + np.count_nonzero(odd == pair))


def _jpeg_2000_tile(data: bytes, pixels: int) -> float:
    """Bytes for a tile of all components: 32 bits while it is decoded, and what it becomes."""
    start = data.find(b"\xff\x4f\xff\x51")
    if start < 0:
        return 0.0  # nothing is decoded: the file ends before its codestream
    fields = [int.from_bytes(data[start + i : start + i + 4], "big") for i in (24, 28)]
    components = int.from_bytes(data[start + 40 : start + 42], "big")
    tile = min(pixels, fields[0] * fields[1])
    return 5.0 * tile * max(1, components)
