"""A file cut short is called truncated, whatever its format and wherever it was cut."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from blip2cli.errors import ImageError
from blip2cli.images.decode import decode
from tests.images.pictures import encoded


def noise(*shape: int) -> np.ndarray:
    return np.random.default_rng(7).integers(0, 256, shape).astype(np.uint8)


RGB = Image.fromarray(noise(24, 32, 3))
RGBA = Image.fromarray(noise(24, 32, 4))
WIDE = Image.fromarray(noise(24, 32).astype(np.uint16) * 257)
MANY = {"save_all": True, "append_images": [RGB.rotate(90)]}
THUMBNAIL = b"Exif\0\0II*\0\x08\0\0\0" + bytes(9) + encoded(RGB.resize((8, 6)), "JPEG")
FILES = {
    "JPEG": encoded(RGB, "JPEG"),
    "JPEG progressive": encoded(RGB, "JPEG", progressive=True),
    "JPEG with a thumbnail": encoded(RGB, "JPEG", exif=THUMBNAIL),
    "PNG": encoded(RGB, "PNG"),
    "PNG animated": encoded(RGB, "PNG", **MANY),
    "GIF": encoded(RGB, "GIF"),
    "GIF animated": encoded(RGB, "GIF", **MANY),
    "WebP": encoded(RGB, "WEBP"),
    "WebP lossless": encoded(RGBA, "WEBP", lossless=True),
    "WebP animated": encoded(RGB, "WEBP", **MANY),
    "TIFF": encoded(RGB, "TIFF"),
    "TIFF pages": encoded(RGB, "TIFF", **MANY),
    "TIFF 64 bit offsets": encoded(RGB, "TIFF", big_tiff=True),
    "TIFF LZW": encoded(RGB, "TIFF", compression="tiff_lzw"),
    "TIFF JPEG": encoded(RGB, "TIFF", compression="jpeg"),
    "TIFF fax": encoded(RGB.convert("1"), "TIFF", compression="group4"),
    "BMP": encoded(RGB, "BMP"),
    "BMP palette": encoded(RGB.convert("P"), "BMP"),
    "DIB": encoded(RGB, "DIB"),
    "AVIF": encoded(RGB, "AVIF"),
    "JPEG 2000": encoded(RGBA, "JPEG2000"),
    "JPEG 2000 tiles": encoded(RGB, "JPEG2000", tile_size=(16, 16), no_jp2=True),
    "QOI": encoded(RGB, "QOI"),
    "ICO": encoded(RGBA, "ICO", sizes=[(24, 24), (16, 16)]),
    "ICO of bitmaps": encoded(RGBA, "ICO", sizes=[(24, 24)], bitmap_format="bmp"),
}


def outcome(data: bytes, whole: np.ndarray) -> str:
    try:
        found = np.asarray(decode(data).image)
    except ImageError as error:
        return error.error_type
    return "the same" if np.array_equal(found, whole) else "another picture"


@pytest.mark.parametrize("name", FILES)
def test_a_cut_file_is_truncated_or_lacks_no_pixel(name: str) -> None:
    data = FILES[name]
    whole = np.asarray(decode(data).image)
    steps = max(1, len(data) // 40)
    for length in {*range(16, len(data), steps), len(data) - 1, len(data) - 2, len(data) * 2 // 3}:
        assert outcome(data[:length], whole) in ("truncated", "the same"), length


@pytest.mark.parametrize("name", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "QOI", "ICO"])
def test_the_first_two_bytes_are_enough(name: str) -> None:
    with pytest.raises(ImageError, match="ends early") as caught:
        decode(FILES[name][:3])
    assert caught.value.error_type == "truncated"
