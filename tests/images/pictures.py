"""Image files made by the tests."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

PHOTOGRAPHS = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg")


def photograph(name: str) -> bytes:
    """A CC0 photograph that ships with scikit-image."""
    import skimage.data  # most tests need no scikit-image

    return (Path(skimage.data.__file__).parent / name).read_bytes()


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The picture as the content of a file."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def gradient(width: int = 31, height: int = 17) -> Image.Image:
    """A small RGB picture that looks different in every turn."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x * 8, y * 15, x + y], -1).astype(np.uint8))


def with_orientation(image: Image.Image, value: int, kind: str = "PNG") -> bytes:
    """The picture with an EXIF orientation tag."""
    exif = Image.Exif()
    exif[0x0112] = value
    return encoded(image, kind, exif=exif)


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk of a PNG file, checksum included."""
    return len(body).to_bytes(4, "big") + kind + body + zlib.crc32(kind + body).to_bytes(4, "big")


def png_with(chunk: bytes, image: Image.Image | None = None) -> bytes:
    """A PNG file with one more chunk after its header."""
    data = encoded(image or gradient(), "PNG")
    return data[:33] + chunk + data[33:]


def picture(number: int) -> bytes:
    """A PNG file of its own size for each number."""
    return encoded(gradient(20 + number, 10 + number), "PNG")


def damaged_tiff() -> bytes:
    """A TIFF whose compressed strip is nonsense, which libtiff warns about."""
    data = bytearray(encoded(gradient(64, 64), "TIFF", compression="tiff_deflate"))
    with Image.open(io.BytesIO(data)) as image:
        (start,), (size,) = image.tag_v2[273], image.tag_v2[279]  # type: ignore[attr-defined]
    data[start + 9 : start + size] = bytes(size - 9)
    return bytes(data)


def draw_images(folder: Path) -> None:
    """Five images of different sizes, colours and formats; sorted, their names run a to e."""
    (folder / "e").mkdir()
    for name, size, colours in (
        ("a.png", (40, 30), ("red", "white")),
        ("b.jpg", (64, 64), ("blue", "yellow")),
        ("c.webp", (33, 50), ("green", "black")),
        ("d.png", (20, 20), ("orange", "navy")),
        ("e/f.bmp", (90, 20), ("pink", "brown")),
    ):
        image = Image.new("RGB", size, colours[0])
        image.paste(colours[1], (size[0] // 4, size[1] // 3, size[0] // 2, size[1]))
        image.save(folder / name)
