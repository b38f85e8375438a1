"""A folder of images in every state: good, unusual and undecodable."""

from __future__ import annotations

import os
import struct
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

from tests.images.pictures import encoded


def picture(width: int = 24, height: int = 18) -> Image.Image:
    """A small RGB picture with some structure."""
    x, y = np.meshgrid(np.arange(width), np.arange(height))
    return Image.fromarray(np.stack([x * 9, y * 12, x + y], -1).astype(np.uint8))


def bomb(width: int, height: int) -> bytes:
    """A PNG whose header claims so many pixels."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return (
            struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
        )

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + body + chunk(b"IEND", b"")


def adobe_cmyk() -> bytes:
    """A CMYK JPEG as Adobe writes them: inverted, with an APP14 marker that says so."""
    data = encoded(picture().convert("CMYK"), "JPEG", quality=95)
    assert b"Adobe" in data[:64]  # Pillow writes the marker and inverts
    return data


def plain_cmyk() -> bytes:
    """The same without the marker, as some cameras and printers write them."""
    data = encoded(picture().convert("CMYK"), "JPEG", quality=95)
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def palette() -> bytes:
    image = picture().quantize(8)
    return encoded(image, "PNG", transparency=bytes([0, 128, 255]))


def animation(kind: str) -> bytes:
    frames = [Image.new("RGB", (9, 7), colour) for colour in ("red", "lime", "blue")]
    return encoded(frames[0], kind, save_all=True, append_images=frames[1:])


def turned() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return encoded(picture(), "JPEG", exif=exif)


def fine() -> dict[bytes, tuple[bytes, tuple[int, int]]]:
    """Name → content, and width and height of the row it gives."""
    small, size = picture(), (24, 18)
    pages = [Image.new("L", (5, 4), shade) for shade in range(40)]
    return {
        b"1x1.png": (encoded(Image.new("RGB", (1, 1), "teal"), "PNG"), (1, 1)),
        b"1x20000.png": (encoded(Image.new("RGB", (1, 20_000), "teal"), "PNG"), (1, 20_000)),
        b"16000x1.webp": (encoded(Image.new("RGB", (16_000, 1), "teal"), "WEBP"), (16_000, 1)),
        b"cmyk-adobe.jpg": (adobe_cmyk(), size),
        b"cmyk-plain.jpg": (plain_cmyk(), size),
        b"16bit.png": (encoded(Image.fromarray(np.full((4, 6), 40_000, np.uint16)), "PNG"), (6, 4)),
        b"palette.png": (palette(), size),
        b"animated.gif": (animation("GIF"), (9, 7)),
        b"animated.webp": (animation("WEBP"), (9, 7)),
        b"progressive.jpg": (encoded(small, "JPEG", progressive=True), size),
        b"wrong-suffix.png": (encoded(small, "JPEG"), size),
        b"exif-garbage.jpg": (encoded(small, "JPEG", exif=b"Exif\0\0MM\0*" + b"\xff" * 60), size),
        b"turned.jpg": (turned(), size[::-1]),
        b"huge-icc.jpg": (encoded(small, "JPEG", icc_profile=bytes(4_000_000)), size),
        b"modern.avif": (encoded(small, "AVIF"), size),
        b"pages.tiff": (encoded(pages[0], "TIFF", save_all=True, append_images=pages[1:]), (5, 4)),
        b"-dash.png": (encoded(small, "PNG"), size),
        b"caf\xe9 \xff.png": (encoded(small, "PNG"), size),
        b"two\nlines\t.png": (encoded(small, "PNG"), size),
        b"back\\udcff.png": (encoded(small, "PNG"), size),  # looks like an escape, and is none
        "日本語 🐈.png".encode(): (encoded(small, "PNG"), size),
    }


def hopeless() -> dict[bytes, tuple[bytes, str]]:
    """Name → content, and the ``error_type`` it fails with."""
    jpeg, png = encoded(picture(300, 200), "JPEG"), encoded(picture(300, 200), "PNG")
    return {
        b"cut.jpg": (jpeg[: len(jpeg) // 2], "truncated"),
        b"cut.png": (png[: len(png) // 2], "truncated"),
        b"damaged.png": (png[:60] + bytes(40) + png[100:], "corrupt"),
        b"nothing.jpg": (b"", "empty"),
        b"words.jpg": (b"The file you asked for has moved.\n", "not_an_image"),
        b"bomb.png": (bomb(50_000, 50_000), "too_many_pixels"),
        b"drawing.png": (b'<?xml version="1.0"?>\n<svg/>', "unsupported_format"),
        b"phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported_format"),
        b"bad\xfe\nname.gif": (b"GIF89a", "truncated"),
    }


def make_folder(folder: Path) -> tuple[dict[str, tuple[int, int]], dict[str, str]]:
    """Write everything; return the sizes of the rows and the types of the failures, by name.

    Beyond ``hopeless``: a file that may not be read (but by a process that keeps root's right to
    read everything), a link to a file that is gone, which is what a file looks like that vanishes
    after it was listed, and a pipe, which a listing leaves out.
    """
    folder.mkdir()
    top = os.fsencode(folder)
    sizes = {os.fsdecode(name): size for name, (_, size) in fine().items()}
    kinds = {os.fsdecode(name): kind for name, (_, kind) in hopeless().items()}
    for name, (data, _) in (fine() | hopeless()).items():
        with open(top + b"/" + name, "wb") as file:
            file.write(data)
    (folder / "locked.png").write_bytes(encoded(picture(), "PNG"))
    (folder / "locked.png").chmod(0)
    (folder / "gone.png").symlink_to("was-here-when-listed.png")
    os.mkfifo(folder / "pipe.png")
    kinds |= {"locked.png": "permission_denied", "gone.png": "missing"}
    return sizes, kinds
