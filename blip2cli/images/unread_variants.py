"""Variants of formats that are read here, which the decoders of this machine do not read.

A sound file of such a variant must not be called damaged. Asked after a decoder has given up.
"""

from __future__ import annotations

from collections.abc import Callable

from PIL import features

from blip2cli.images.jpeg_segments import segments
from blip2cli.images.tiff_header import description, is_camera_raw, read_directory

# Codecs that a build of Pillow may lack, by the format that needs them.
_CODECS = {"AVIF": "avif", "WebP": "webp", "JPEG 2000": "jpg_2000", "JPEG": "jpg", "PNG": "zlib"}
# Frames of JPEG that libjpeg does not read (ITU T.81, table B.1; T.87 for LS).
_JPEG_FRAMES = {
    0xC3: "lossless", 0xC5: "hierarchical", 0xC6: "hierarchical", 0xC7: "hierarchical",
    0xCB: "lossless", 0xCD: "hierarchical", 0xCE: "hierarchical", 0xCF: "hierarchical",
    0xF7: "JPEG-LS",
}  # fmt: skip
_JPEG_READ = frozenset({0xC0, 0xC1, 0xC2, 0xC9, 0xCA})
_BMP_HEADERS = (12, 16, 40, 52, 56, 64, 108, 124)
_BMP_DEPTHS = (0, 1, 2, 4, 8, 16, 24, 32, 64)
_BMP_COMPRESSIONS = {4: "a JPEG inside", 5: "a PNG inside", 11: "CMYK", 12: "CMYK", 13: "CMYK"}
# Words of Pillow's decoders for what they know and do not read.
_REFUSALS = (
    "unsupported", "not supported", "not yet supported", "cannot handle", "unknown pixel mode",
    "not available", "no codec", "not implemented", "unknown data organization",
)  # fmt: skip


def unread_variant(data: bytes, name: str, error: Exception) -> str | None:
    """Words for the variant, such as ``TIFF (RGB, 3 x 32 bit floating-point numbers)``."""
    codec = _CODECS.get(name)
    if codec is not None and not features.check(codec):
        return f"{name}, whose decoder Pillow lacks on this machine"
    find = _VARIANTS.get(name)
    words = find(data, str(error).lower()) if find is not None else None
    return words and f"{name} ({words})"


def _jpeg(data: bytes, _: str) -> str | None:
    for marker, start, end, _skipped in segments(data):
        if marker in _JPEG_FRAMES:
            return _JPEG_FRAMES[marker]
        if marker in _JPEG_READ and start + 6 <= min(end, len(data)):
            depth, layers = data[start], data[start + 5]
            if depth in (12, 16):
                return f"{depth} bit"
            return f"{layers} colours" if layers not in (0, 1, 3, 4) else None
    return None


def _tiff(data: bytes, problem: str) -> str | None:
    directory = read_directory(data)
    if directory is None:
        return None
    if is_camera_raw(data, directory):
        return "a camera's raw file"
    # libtiff's "decoder error -2" stands for damaged data and for codecs that it lacks.
    known = directory.first(259, 1) in _TIFF_COMPRESSIONS
    refused = any(words in problem for words in _REFUSALS) or "cannot identify" in problem
    return description(directory) if refused or not known else None


_TIFF_COMPRESSIONS = (1, 2, 3, 4, 5, 6, 7, 8, 32771, 32773, 32946)


def _bmp(data: bytes, problem: str) -> str | None:
    header = int.from_bytes(data[14:18], "little")
    start = 26 if header >= 16 else 22
    planes, depth = (int.from_bytes(data[i : i + 2], "little") for i in (start, start + 2))
    compression = int.from_bytes(data[30:34], "little") if header >= 40 else 0
    if header not in _BMP_HEADERS or planes != 1 or depth not in _BMP_DEPTHS:
        return None  # damaged
    if compression in _BMP_COMPRESSIONS:
        return _BMP_COMPRESSIONS[compression]
    if any(words in problem for words in _REFUSALS) and "palette size" not in problem:
        return f"{depth} bit, compression {compression}, header {header}"
    return None


def _png(data: bytes, _: str) -> str | None:
    return "as only Apple's devices read it" if data[12:16] == b"CgBI" else None


def _jpeg_2000(data: bytes, problem: str) -> str | None:
    start = data.find(b"\xff\x4f\xff\x51")
    components = int.from_bytes(data[start + 40 : start + 42], "big")
    depths = [1 + (depth & 0x7F) for depth in data[start + 42 : start + 42 + 3 * components : 3]]
    if start < 0 or len(depths) != components or components > 1 << 14:
        return None  # damaged
    if components > 4 or max(depths, default=0) > 16:
        return f"{components} x {max(depths)} bit"
    return _by_words(data, problem)


def _by_words(_: bytes, problem: str) -> str | None:
    return "a variant" if any(words in problem for words in _REFUSALS) else None


_VARIANTS: dict[str, Callable[[bytes, str], str | None]] = {
    "JPEG": _jpeg,
    "TIFF": _tiff,
    "BMP": _bmp,
    "DIB": _by_words,
    "JPEG 2000": _jpeg_2000,
    "PNG": _png,
    "AVIF": _by_words,
}
