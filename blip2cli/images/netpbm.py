"""Reader of Netpbm files: P1 to P6, and PFM in grey (https://netpbm.sourceforge.net/doc).

Pillow's needs half a microsecond of Python a number, and a time that grows with the square of the
comments: half an hour for 100 MB of these.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

import numpy as np
from PIL import Image

from blip2cli.errors import ImageError
from blip2cli.images.limits import check_memory

START = re.compile(rb"P[1-6f][\s#]")
MAX_TEXT = 256 << 20  # bytes of a picture written in digits
_GAP = re.compile(rb"(?:\s+|#[^\r\n]*(?:[\r\n]|\Z))*+")
_TOKEN = re.compile(rb"[^\s#]{1,16}")
_SPACE = re.compile(rb"\s")
_PIECE = 1 << 22  # bytes or numbers that are converted at a time
_LONGEST = 1 << 16  # bytes; no number is longer
_HEADER = 1 << 20  # bytes of comments between two numbers of the header


def read_netpbm(data: bytes) -> Image.Image:
    """The picture, in mode L, RGB or F; numbers are brought to 8 bits, except floats.

    Raises ImageError ``truncated``, ``corrupt``, ``too_many_pixels`` or ``too_large``.
    """
    kind, at = data[1:2], 2
    fields = []
    for _ in range(2 if kind in b"14" else 3):
        gap = _GAP.match(data, at, at + _HEADER)
        start = gap.end() if gap else at
        if start - at == _HEADER:
            raise ImageError("too_large", "Its header is over a megabyte.")
        token = _TOKEN.match(data, start)
        if token is None:
            raise _cut()
        fields.append(token[0])
        at = token.end()
    if data[at : at + 1] == b"#":
        at = data.find(b"\n", at)
    at += 1  # one blank before the pixels
    if at >= len(data):
        raise _cut()
    try:
        width, height = int(fields[0]), int(fields[1])
        white = float(fields[2]) if kind == b"f" else int(fields[2]) if fields[2:] else 1
    except ValueError:
        raise _corrupt("its header holds something else than numbers") from None
    if width < 1 or height < 1 or (kind != b"f" and not 0 < white < 65536):
        raise _corrupt("its header holds numbers out of range")
    raw = kind == b"4" or (kind in b"56" and white == 255)
    check_memory(width, height, 5 if raw else 8)
    size, body = (width, height), memoryview(data)[at:]
    if kind == b"f":
        if not (white and np.isfinite(white)):
            raise _corrupt("its scale is no number")
        return _raw("F", size, body, ("F;32F" if white < 0 else "F;32BF", 0, -1), width * 4)
    if kind == b"4":
        return _raw("1", size, body, ("1;I", 0, 1), (width + 7) // 8).convert("L")
    mode = "RGB" if kind in b"36" else "L"
    values = width * (3 if mode == "RGB" else 1)
    if raw:
        return _raw(mode, size, body, (mode, 0, 1), values)
    numbers = np.empty(values * height, np.uint8)
    filled = 0
    for piece in _pieces(data, at, kind, int(white)):
        piece = piece[: len(numbers) - filled]
        numbers[filled : filled + len(piece)] = piece
        filled += len(piece)
        if filled == len(numbers):
            return _raw(mode, size, numbers.data, (mode, 0, 1), values)
    raise _cut()


def _raw(
    mode: str, size: tuple[int, int], body: memoryview, how: tuple[str, int, int], row: int
) -> Image.Image:
    if len(body) < row * size[1]:
        raise _cut()
    return Image.frombytes(mode, size, body[: row * size[1]], "raw", *how)


def _pieces(data: bytes, at: int, kind: bytes, white: int) -> Iterator[np.ndarray]:
    """The numbers of the picture as uint8, piece by piece."""
    to_8_bits = np.rint(np.arange(white + 1) * (255 / white)).astype(np.uint8)
    if kind in b"56":
        width = 1 if white < 256 else 2
        numbers = np.frombuffer(data, f">u{width}", (len(data) - at) // width, at)
        for start in range(0, len(numbers), _PIECE):
            yield to_8_bits[np.minimum(numbers[start : start + _PIECE], white)]
        return
    if len(data) - at > MAX_TEXT:
        raise ImageError("too_large", f"It is written in digits, and over {MAX_TEXT >> 20} MiB.")
    digits = b"01" if kind == b"1" else b"0123456789"
    for piece in _without_comments(data, at):
        if piece.translate(None, digits + b" \t\n\v\f\r"):
            raise _corrupt("there is something else than numbers among its pixels")
        if kind == b"1":
            bits = np.frombuffer(piece.translate(None, b" \t\n\v\f\r"), np.uint8)
            yield np.where(bits == ord("1"), np.uint8(0), np.uint8(255))
            continue
        values = np.fromstring(piece, np.int64, sep=" ")
        if len(values) and not 0 <= int(values.max()) <= white:
            raise _corrupt(f"a number among its pixels is over {white}")
        yield to_8_bits[values]


def _without_comments(data: bytes, start: int) -> Iterator[bytes]:
    """The rest of a text in pieces that end between two numbers, comments made blank."""
    in_comment = False
    while start < len(data):
        end = start + _PIECE
        space = _SPACE.search(data, end, end + _LONGEST)
        piece = data[start : space.end() if space else end + _LONGEST]
        start += len(piece)
        if in_comment or b"#" in piece:
            letters = np.frombuffer(piece, np.uint8).copy()
            places = np.arange(1, len(letters) + 1, dtype=np.int32)
            marks = np.maximum.accumulate(np.where(letters == ord("#"), places, int(in_comment)))
            line_ends = (letters == ord("\n")) | (letters == ord("\r"))
            ends = np.maximum.accumulate(np.where(line_ends, places, 0))
            letters[marks > ends] = ord(" ")
            in_comment = bool(marks[-1] > ends[-1])
            piece = letters.tobytes()
        yield piece


def _cut() -> ImageError:
    return ImageError("truncated", "The Netpbm file ends early.")


def _corrupt(why: str) -> ImageError:
    return ImageError("corrupt", f"The Netpbm data are damaged: {why}.")
