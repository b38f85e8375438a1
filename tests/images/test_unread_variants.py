"""Sound files of variants that no decoder here reads are not called damaged."""

from __future__ import annotations

import struct

import pytest
from PIL import features

from tests.images.hand_made import numbers, tiff
from tests.images.helpers import failure
from tests.images.pictures import encoded, gradient

JPEG = encoded(gradient(), "JPEG")
J2K = encoded(gradient(), "JPEG2000", no_jp2=True)


def jpeg_frame(marker: int, depth: int = 8) -> bytes:
    start = JPEG.index(b"\xff\xc0")
    return (
        JPEG[: start + 1]
        + bytes([marker])
        + JPEG[start + 2 : start + 4]
        + bytes([depth])
        + (JPEG[start + 5 :])
    )


def j2k(components: int, depth: int) -> bytes:
    size = struct.pack(">H", 38 + 3 * components)
    rest = struct.pack(">H", components) + bytes([depth - 1, 1, 1]) * components
    return J2K[:4] + size + J2K[6:40] + rest + J2K[51:]


def bmp(depth: int, compression: int, header: int = 40) -> bytes:
    fields = struct.pack("<IiiHHIIiiII", header, 4, 4, 1, depth, compression, 64, 0, 0, 0, 0)
    body = fields + bytes(header - 40 + 64)
    return b"BM" + struct.pack("<IHHI", 14 + len(body), 0, 0, 14 + header) + body


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (jpeg_frame(0xC3), "lossless"),
        (jpeg_frame(0xC5), "hierarchical"),
        (jpeg_frame(0xC1, 12), "12 bit"),
        (jpeg_frame(0xF7), "JPEG-LS"),
        (j2k(5, 8), "5 x 8 bit"),
        (j2k(1, 32), "1 x 32 bit"),
        (bmp(32, 4), "a JPEG inside"),
        (bmp(32, 5), "a PNG inside"),
        (bmp(64, 0), "64 bit"),
        (bmp(2, 0), "2 bit"),
        (encoded(gradient(), "PNG")[:8] + b"\0\0\0\4CgBI" + bytes(8), "Apple"),
        (tiff(numbers(8, 5), 8, 1), "grey, 5 x 8 bit whole numbers"),
        (tiff(numbers(16, 3), 16, 2, t339=(3, 3, 3)), "RGB, 3 x 16 bit floating-point"),
        (
            tiff(numbers(8), 8, 1).replace(b"\3\1\3\0\1\0\0\0\1\0", b"\3\1\3\0\1\0\0\0\x52\xc3"),
            "50002",
        ),
        (tiff(numbers(16, 4), 16, 5, planar=True), "CMYK, 4 x 16 bit"),
        (tiff(numbers(16), 16, 32803), "camera's raw"),
        (tiff(numbers(8, 3), 8, 2, t254=(1,), t271=(66,), t330=(8,)), "camera's raw"),
        (tiff(numbers(8, 3), 8, 2, t50706=(1, 4)), "camera's raw"),
    ],
)
def test_unread_variants(data: bytes, words: str) -> None:
    error = failure(data)
    assert error.error_type == "unsupported_format", str(error)
    assert words in str(error)


@pytest.mark.parametrize(("kind", "codec"), [("AVIF", "avif"), ("WEBP", "webp")])
def test_a_build_without_a_codec(kind: str, codec: str, monkeypatch: pytest.MonkeyPatch) -> None:
    data = encoded(gradient(), kind)
    plugin = {"avif": "AvifImagePlugin", "webp": "WebPImagePlugin"}[codec]
    monkeypatch.setattr(f"PIL.{plugin}.SUPPORTED", False)
    there = features.check
    monkeypatch.setattr(features, "check", lambda name: name != codec and there(name))
    error = failure(data)
    assert error.error_type == "unsupported_format"
    assert "Pillow lacks" in str(error)


def test_damage_is_no_variant() -> None:
    damaged = {"corrupt", "truncated"}
    assert failure(bmp(77, 0)).error_type in damaged
    broken = bytearray(encoded(gradient(), "TIFF", compression="tiff_deflate"))
    broken[20:60] = bytes(40)
    assert failure(bytes(broken)).error_type in damaged
