"""What a file claims to be, read from its first bytes.

Used to name an error well after a decoder has given up, never to decide whether to decode.
"""

from __future__ import annotations

import re

from blip2cli.images.unread_kinds import unread_kind

TIFF_STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+", b"II\0*", b"MM*\0")
# First bytes of the formats that are read here, where they stand, and the name.
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
_NETPBM = re.compile(rb"\A(?:P[1-6]|Pf)[\s#]")
_DIB_SIZES = (12, 40, 52, 56, 64, 108, 124)
# What stands before a picture that a web page's script wrote: line breaks, a byte-order mark.
_BLANKS = re.compile(rb"\A(?:\xef\xbb\xbf)?[\r\n\t ]{1,16}|\A\xef\xbb\xbf")
_WEB_PAGE = re.compile(
    rb"\A(?:\xef\xbb\xbf)?\s*(?:<!--.*?-->\s*)?<(?:!doctype\s+html|html|head|body|title)\b",
    re.IGNORECASE | re.DOTALL,
)

# PNG chunks that carry words or profiles, no pixels.
_PNG_WORDS = frozenset({b"tEXt", b"zTXt", b"iTXt", b"iCCP"})


def claimed_format(data: bytes) -> tuple[str | None, bool]:
    """Return the format's everyday name (None: no known kind) and whether it is read here."""
    for magic, offset, name in _READABLE:
        if data[offset : offset + len(magic)] == magic:
            kind = unread_kind(data[:12]) if name == "TIFF" else None
            return (kind, False) if kind else (name, True)
    if data[4:8] == b"ftyp" and b"avif" in data[16 : int.from_bytes(data[:4], "big")]:
        return "AVIF", True
    if _NETPBM.match(data):
        return "Netpbm", True
    kind = unread_kind(data)
    if kind is not None:
        return kind, False
    if int.from_bytes(data[:4], "little") in _DIB_SIZES and data[12:14] == b"\1\0":
        return "DIB", True
    # Too short to be told from others: cut within the first bytes.
    starts = (name for magic, offset, name in _READABLE if magic.startswith(data) and not offset)
    return next(((name, True) for name in starts if len(data) > 1), (None, False))


def without_leading_blanks(data: bytes) -> bytes | None:
    """The picture behind line breaks or a byte-order mark; None where there is none."""
    found = _BLANKS.match(data)
    if found is None:
        return None
    rest = data[found.end() :]
    name, readable = claimed_format(rest[:64])
    return rest if readable and name not in ("Netpbm", "TIFF") and len(rest) > 16 else None


def what_text(data: bytes) -> str:
    """A few words about content that is no image: a web page, text, or unknown."""
    if _WEB_PAGE.match(data[:4096]):
        return "a web page (HTML), not an image"
    start = data[:512]
    if b"\0" not in start and not start.translate(None, bytes(range(32, 127)) + b"\t\r\n\f"):
        return "text, not an image"
    return "not an image of a known kind"


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
