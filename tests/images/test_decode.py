from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image, ImageOps

from blip2cli.images.decode import decode
from tests.images.helpers import pixels
from tests.images.pictures import (
    PHOTOGRAPHS,
    encoded,
    gradient,
    photograph,
    png_chunk,
    png_with,
    with_orientation,
)


@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_come_out_as_pillow_reads_them(name: str) -> None:
    data = photograph(name)
    expected = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"))
    assert np.array_equal(pixels(data), expected)


@pytest.mark.parametrize(
    "kind", ["JPEG", "PNG", "WEBP", "TIFF", "BMP", "AVIF", "GIF", "PPM", "QOI"]
)
def test_formats(kind: str) -> None:
    data = encoded(gradient(), kind)
    assert np.array_equal(pixels(data), np.asarray(Image.open(io.BytesIO(data)).convert("RGB")))


def test_progressive_jpeg_and_jpeg_2000() -> None:
    progressive = encoded(gradient(), "JPEG", progressive=True)
    assert np.array_equal(pixels(progressive), np.asarray(Image.open(io.BytesIO(progressive))))
    assert np.array_equal(pixels(encoded(gradient(), "JPEG2000")), np.asarray(gradient()))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP"])
@pytest.mark.parametrize("value", range(1, 9))
def test_orientation_is_applied(value: int, kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    exif = Image.Exif()
    exif[0x0112] = value
    data = encoded(gradient(), kind, exif=exif, **options)
    upright = gradient()
    upright.getexif()[0x0112] = value
    expected = ImageOps.exif_transpose(upright)
    picture = decode(data)
    assert (picture.width, picture.height) == ((31, 17) if value < 5 else (17, 31))
    assert np.array_equal(np.asarray(picture.image), np.asarray(expected))


def test_damaged_orientation_is_ignored() -> None:
    plain = np.asarray(gradient())
    for value in (0, 9, 77):
        assert np.array_equal(pixels(with_orientation(gradient(), value)), plain)
    for garbage in (
        b"Exif\0\0",
        b"Exif\0\0MM\0*\0\0\0\x08\xff\xff" + b"\x01\x12" * 9,
        b"\xff" * 40,
    ):
        data = encoded(gradient(), "JPEG", exif=garbage)
        assert pixels(data).shape == (17, 31, 3)
    # An orientation of type text, "6": tag, type 2, two bytes.
    entry = b"\x12\x01\x02\0\x02\0\0\0" + b"6\0\0\0"
    text = b"Exif\0\0II*\0\x08\0\0\0\x01\0" + entry + bytes(4)
    assert np.array_equal(pixels(encoded(gradient(), "PNG", exif=text)), plain)


def on_white(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    share = alpha[..., None] / 255
    return rgb * share + 255 * (1 - share)


def test_alpha_is_composited_on_white() -> None:
    alpha = np.tile(np.linspace(0, 255, 31).astype(np.uint8), (17, 1))
    rgba = np.dstack([np.asarray(gradient()), alpha])
    expected = on_white(np.asarray(gradient()).astype(float), alpha)
    for kind, options in (("PNG", {}), ("TIFF", {}), ("WEBP", {"lossless": True, "exact": True})):
        found = pixels(encoded(Image.fromarray(rgba), kind, **options))
        assert np.abs(found - expected).max() <= 1, kind

    grey = Image.fromarray(np.dstack([rgba[..., 0], alpha]), "LA")
    expected = on_white(np.repeat(rgba[..., :1], 3, axis=2).astype(float), alpha)
    assert np.abs(pixels(encoded(grey, "PNG")) - expected).max() <= 1


def test_opaque_alpha_changes_nothing() -> None:
    image = gradient()
    image.putalpha(255)
    assert np.array_equal(pixels(encoded(image, "PNG")), np.asarray(gradient()))


def test_transparent_palette_entries_and_colours_become_white() -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([200, 0, 0, 0, 100, 0])
    image.putdata([0, 1])
    for transparency in (0, b"\x00\xff"):  # one entry, or an alpha for each
        data = encoded(image, "PNG", transparency=transparency)
        assert pixels(data).tolist() == [[[255, 255, 255], [0, 100, 0]]]
    assert pixels(encoded(image, "GIF", transparency=0)).tolist()[0][0] == [255, 255, 255]

    rgb = Image.fromarray(np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8))
    data = encoded(rgb, "PNG", transparency=(1, 2, 3))
    assert pixels(data).tolist() == [[[255, 255, 255], [4, 5, 6]]]
    wide = Image.fromarray(np.array([[0, 257, 65535]], np.uint16))
    data = png_with(png_chunk(b"tRNS", (257).to_bytes(2, "big")), wide)
    assert pixels(data)[0, :, 0].tolist() == [0, 255, 255]


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    values = np.array([[0, 128, 129, 257, 32896, 65407, 65535]], np.uint16)
    expected = np.rint(values / 257).astype(np.uint8)[0].tolist()
    assert expected[-1] == 255
    for kind in ("PNG", "TIFF"):
        found = pixels(encoded(Image.fromarray(values), kind))
        assert found[0, :, 0].tolist() == expected, kind
        assert (found[..., 0] == found[..., 2]).all()
    big_endian = b"P5 7 1 65535\n" + values.astype(">u2").tobytes()
    assert pixels(big_endian)[0, :, 0].tolist() == expected


def test_greyscale_without_an_agreed_white_is_stretched() -> None:
    def grey(values: list[float], dtype: type) -> list[int]:
        data = encoded(Image.fromarray(np.array([values], dtype)), "TIFF")
        found: list[int] = pixels(data)[0, :, 1].tolist()
        return found

    assert grey([0, 0.5, 1], np.float32) == [0, 128, 255]
    assert grey([-1, 0, 3], np.float32) == [0, 64, 255]
    assert grey([np.nan, 0, 1], np.float32) == [0, 0, 255]
    assert grey([7, 7, 7], np.float32) == [0, 0, 0]
    assert grey([0, 65535], np.int32) == [0, 255]
    assert grey([-1_000_000, 0, 1_000_000], np.int32) == [0, 128, 255]


def test_one_bit_cmyk_and_lab() -> None:
    assert pixels(encoded(gradient().convert("1"), "PNG")).max() == 255
    cmyk = encoded(gradient().convert("CMYK"), "JPEG", quality=100)
    assert np.array_equal(pixels(cmyk), np.asarray(Image.open(io.BytesIO(cmyk)).convert("RGB")))
    # L* in 255ths of 100, then a* and b* as signed bytes.
    white_and_red = Image.frombytes("LAB", (2, 1), bytes([255, 0, 0, 136, 80, 67]))
    found = pixels(encoded(white_and_red, "TIFF"))[0]
    assert found[0].min() > 250
    assert found[1][0] > 200
    assert found[1][1:].max() < 60


def test_the_first_frame_of_animations_and_many_pages() -> None:
    frames = [Image.new("RGB", (8, 6), colour) for colour in ("red", "lime", "blue")]
    for kind in ("GIF", "PNG", "TIFF", "WEBP", "AVIF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        found = pixels(data)
        assert found.shape == (6, 8, 3), kind
        assert np.abs(found.astype(int) - [255, 0, 0]).max() <= 8, kind


def test_extreme_shapes() -> None:
    assert pixels(encoded(Image.new("RGB", (1, 1)), "PNG")).shape == (1, 1, 3)
    assert pixels(encoded(Image.new("RGB", (1, 20_000)), "PNG")).shape == (20_000, 1, 3)
