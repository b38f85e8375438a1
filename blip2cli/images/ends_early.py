"""Whether a file that was not decoded ends before its format says it does."""

from __future__ import annotations

import re
from collections.abc import Callable

from blip2cli.images.jpeg_segments import EOI, segments
from blip2cli.images.tiff_header import pixels_are_cut, read_directory

_JPEG_END = re.compile(rb"\xff+\xd9")


def ends_early(data: bytes, name: str) -> bool:
    """True when a file of format ``name`` lacks the end that its format calls for."""
    check = _CHECKS.get(name)
    return check is not None and check(data)


def _jpeg(data: bytes) -> bool:
    """Segments up to the first scan have lengths; a thumbnail's end inside one does not count."""
    last = None
    for last in segments(data):
        if last.end > len(data):
            return True
    return last is None or (last.marker != EOI and not _JPEG_END.search(data, last.end))


def _png(data: bytes) -> bool:
    at = 8
    while at + 12 <= len(data):
        if data[at + 4 : at + 8] == b"IEND":
            return False
        at += 12 + int.from_bytes(data[at : at + 4], "big")
    return True


def _gif(data: bytes) -> bool:
    def after_blocks(at: int) -> int:
        while at < len(data) and data[at]:
            at += data[at] + 1
        return at + 1

    def palette(flags: int) -> int:
        return 6 << (flags & 7) if flags & 0x80 else 0

    at = 13 + palette(data[10]) if len(data) > 10 else 13
    while at < len(data):
        kind = data[at]
        if kind == 0x3B:
            return False
        if kind == 0x21:
            at = after_blocks(at + 2)
        elif kind == 0x2C and at + 9 < len(data):
            at = after_blocks(at + 11 + palette(data[at + 9]))
        elif kind == 0:
            at += 1  # padding between blocks
        else:
            return kind == 0x2C
    return True


def _webp(data: bytes) -> bool:
    return int.from_bytes(data[4:8], "little") + 8 > len(data)


def _bmp(data: bytes) -> bool:
    return int.from_bytes(data[2:6], "little") > len(data) or _dib(data, 14)


def _dib(data: bytes, start: int = 0, end: int | None = None) -> bool:
    """True when an uncompressed bitmap has fewer bytes than its header calls for."""
    end = len(data) if end is None else end
    header = data[start : start + 24]
    size = int.from_bytes(header[:4], "little")
    if size == 12:
        width, height, depth = (int.from_bytes(header[i : i + 2], "little") for i in (4, 6, 10))
        compression = 0
    else:
        width, height = (int.from_bytes(header[i : i + 4], "little", signed=True) for i in (4, 8))
        depth = int.from_bytes(header[14:16], "little")
        compression = int.from_bytes(header[16:20], "little")
    if len(header) < (12 if size == 12 else 20) or start + size > end:
        return True
    if compression in (1, 2):  # run lengths, which end with a mark
        return data[:end].rstrip(b"\0")[-1:] != b"\1"
    return start + size + (width * depth + 31) // 32 * 4 * abs(height) > end


def _icon(data: bytes) -> bool:
    count = int.from_bytes(data[4:6], "little")
    for at in range(6, 6 + 16 * count, 16):
        size, start = (int.from_bytes(data[at + i : at + i + 4], "little") for i in (8, 12))
        if at + 16 > len(data) or start + size > len(data):
            return True
    return count == 0 or len(data) < 22


def _boxes(data: bytes) -> bool:
    """True when a top-level box of an ISO media file is cut or missing."""
    end, kinds = 0, set()
    while end + 8 <= len(data):
        size = int.from_bytes(data[end : end + 4], "big")
        kinds.add(data[end + 4 : end + 8])
        if size == 0:  # "up to the end of the file"
            size = len(data) - end
        elif size == 1:
            size = int.from_bytes(data[end + 8 : end + 16], "big")
        if size < 8:
            return False
        end += size
    pixels = b"mdat" in kinds or b"idat" in data
    return end != len(data) or not pixels or not kinds & {b"meta", b"moov"}


def _jpeg_2000(data: bytes) -> bool:
    return not data.rstrip(b"\0").endswith(b"\xff\xd9")


def _qoi(data: bytes) -> bool:
    return not data.endswith(b"\0\0\0\0\0\0\0\1")


def _tiff(data: bytes) -> bool:
    directory = read_directory(data)
    return directory is None or pixels_are_cut(data, directory)


_CHECKS: dict[str, Callable[[bytes], bool]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "GIF": _gif,
    "WebP": _webp,
    "BMP": _bmp,
    "DIB": _dib,
    "ICO": _icon,
    "AVIF": _boxes,
    "JPEG 2000": _jpeg_2000,
    "QOI": _qoi,
    "TIFF": _tiff,
}
