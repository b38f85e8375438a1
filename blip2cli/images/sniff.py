"""What a file claims to be, read from its first bytes and its own length fields.

Used to name an error well after a decoder has given up, never to decide whether to decode.
"""

from __future__ import annotations

import re
from typing import Literal

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_READABLE: tuple[tuple[bytes, int, str], ...] = (
    (b"\xff\xd8\xff", 0, "JPEG"),
    (b"\x89PNG\r\n\x1a\n", 0, "PNG"),
    (b"GIF8", 0, "GIF"),
    (b"WEBP", 8, "WebP"),
    *((start, 0, "TIFF") for start in TIFF_STARTS),
    (b"BM", 0, "BMP"),
    (b"ftypavif", 4, "AVIF"),
    (b"ftypavis", 4, "AVIF"),
    (b"\0\0\0\x0cjP  \r\n\x87\n", 0, "JPEG 2000"),
    (b"\xff\x4f\xff\x51", 0, "JPEG 2000"),
    (b"qoif", 0, "QOI"),
    (b"\0\0\1\0", 0, "ICO"),
)
_OTHER: tuple[tuple[bytes, int, str], ...] = (
    (b"ftyphei", 4, "HEIC"),
    (b"ftyphev", 4, "HEIC"),
    (b"ftypmif1", 4, "HEIF"),
    (b"ftypmsf1", 4, "HEIF"),
    (b"\xff\x0a", 0, "JPEG XL"),
    (b"\0\0\0\x0cJXL \r\n\x87\n", 0, "JPEG XL"),
    (b"%PDF-", 0, "PDF"),
    (b"%!PS", 0, "PostScript"),
    (b"\xc5\xd0\xd3\xc6", 0, "EPS"),
    (b"8BPS", 0, "a Photoshop document"),
    (b"SIMPLE  =", 0, "FITS"),
    (b"DDS ", 0, "DDS"),
    (b"\x76\x2f\x31\x01", 0, "OpenEXR"),
    (b"gimp xcf", 0, "a GIMP document"),
    (b"icns", 0, "ICNS"),
)
# An <svg> element near the start, after an XML declaration, comments or a doctype.
_SVG = re.compile(rb"\A(?:\xef\xbb\xbf)?\s*(?:<\?xml|<!--|<!DOCTYPE\s+svg|<svg)", re.IGNORECASE)
_NETPBM = re.compile(rb"\AP[1-7]\s")

# PNG chunks that carry words or profiles, no pixels.
_PNG_WORDS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})


def claimed_format(data: bytes) -> tuple[str | None, bool]:
    """Return the format's everyday name (None: no known kind) and whether it is read here."""
    for table, readable in ((_READABLE, True), (_OTHER, False)):
        for magic, offset, name in table:
            if data[offset : offset + len(magic)] == magic:
                return name, readable
    if _NETPBM.match(data):
        return "Netpbm", True
    if _SVG.match(data[:512]) and b"<svg" in data[:65536].lower():
        return "SVG", False
    return None, False


def ends_early(data: bytes, name: str) -> bool:
    """True when a file of format ``name`` lacks the end that its format calls for."""
    if name == "JPEG":
        return b"\xff\xd9" not in data[-65536:]
    if name == "PNG":
        return b"IEND" not in data[-65536:]
    if name == "GIF":
        return not data.rstrip(b"\0").endswith(b";")
    if name == "WebP":
        return int.from_bytes(data[4:8], "little") + 8 > len(data)
    if name == "BMP":
        return int.from_bytes(data[2:6], "little") > len(data)
    if name == "QOI":
        return not data.endswith(b"\0\0\0\0\0\0\0\1")
    if name == "AVIF":
        return _boxes_end(data) > len(data)
    if name == "JPEG 2000":
        return not data.endswith(b"\xff\xd9")
    if name == "TIFF":
        byte_order: Literal["little", "big"] = "little" if data[:2] == b"II" else "big"
        return len(data) < 8 or int.from_bytes(data[4:8], byte_order) >= len(data)
    return False


def _boxes_end(data: bytes) -> int:
    """Where the last top-level box of an ISO media file says it ends."""
    end = 0
    while end + 8 <= len(data):
        size = int.from_bytes(data[end : end + 4], "big")
        if size == 0:  # "up to the end of the file"
            return len(data)
        if size == 1:
            size = int.from_bytes(data[end + 8 : end + 16], "big")
        if size < 8:
            return end
        end += size
    return end if end >= len(data) else end + 8


def without_png_metadata(data: bytes) -> bytes | None:
    """Return a PNG file without its text and profile chunks; None when it is no PNG."""
    if not data.startswith(b"\x89PNG\r\n\x1a\n"):
        return None
    chunks = [data[:8]]
    place = 8
    while place + 8 <= len(data):
        end = place + 12 + int.from_bytes(data[place : place + 4], "big")
        if data[place + 4 : place + 8] not in _PNG_WORDS:
            chunks.append(data[place:end])
        place = end
    return b"".join(chunks)
