from __future__ import annotations

import io
import struct
import time
import warnings
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from blip2cli.errors import ImageError
from blip2cli.images import decode as module
from blip2cli.images.decode import MAX_PIXELS, decode
from tests.images.pictures import (
    PHOTOGRAPHS,
    encoded,
    gradient,
    photograph,
    png_chunk,
    png_with,
    with_orientation,
)


def pixels(data: bytes) -> np.ndarray:
    picture = decode(data)
    assert picture.image.mode == "RGB"
    assert picture.image.size == (picture.width, picture.height)
    return np.asarray(picture.image)


def failure(data: bytes) -> ImageError:
    with pytest.raises(ImageError) as caught:
        decode(data)
    assert str(caught.value).endswith(".")
    assert "\n" not in str(caught.value)
    return caught.value


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


def test_huge_metadata_do_not_hide_the_picture() -> None:
    plain = np.asarray(gradient())
    profile = b"icc\0\0" + zlib.compress(bytes(3 << 20))
    words = b"Comment\0\0" + zlib.compress(b"x" * (3 << 20))
    many = b"".join(
        png_chunk(b"zTXt", b"C%d\0\0" % i + zlib.compress(bytes(1_000_000))) for i in range(70)
    )
    for chunk in (png_chunk(b"iCCP", profile), png_chunk(b"zTXt", words), many):
        assert np.array_equal(pixels(png_with(chunk)), plain)
        behind = encoded(gradient(), "PNG")
        assert np.array_equal(pixels(behind[:-12] + chunk + behind[-12:]), plain)
    jpeg = encoded(gradient(), "JPEG", icc_profile=bytes(300_000))
    assert pixels(jpeg).shape == plain.shape


def test_huge_metadata_that_cannot_be_left_out() -> None:
    inner = png_with(png_chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(3 << 20))))
    directory = struct.pack("<HHH", 0, 1, 1)
    entry = struct.pack("<BBBBHHII", 31, 17, 0, 0, 1, 24, len(inner), 22)
    assert failure(directory + entry + inner).error_type == "absurd_metadata"


def test_a_side_of_absurd_length_is_refused_at_once() -> None:
    frames = [Image.new("RGB", (12, 9), colour) for colour in ("red", "blue")]
    buffer = io.BytesIO()
    frames[0].save(buffer, "WEBP", save_all=True, append_images=frames[1:])
    data = bytearray(buffer.getvalue())
    assert decode(bytes(data)).width == 12
    data[24:27] = (16_776_972 - 1).to_bytes(3, "little")  # the width of the canvas
    began = time.process_time()
    assert failure(bytes(data)).error_type == "too_many_pixels"
    assert time.process_time() - began < 5  # it took minutes


def bomb(width: int, height: int) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(bytes(1000)))
    return b"\x89PNG\r\n\x1a\n" + header + data + png_chunk(b"IEND", b"")


def test_decompression_bombs_are_refused_before_they_unfold() -> None:
    for data in (bomb(60_000, 60_000), bomb(MAX_PIXELS // 1000 + 1, 1000), bomb(1 << 30, 1 << 30)):
        error = failure(data)
        assert error.error_type in ("too_many_pixels", "corrupt"), str(error)
    assert failure(bomb(MAX_PIXELS // 1000 + 1, 1000)).error_type == "too_many_pixels"
    # Between Pillow's warning level and the limit nothing is reported, here or on stderr.
    assert failure(bomb(10_000, 10_000)).error_type in ("corrupt", "truncated")


def test_no_warning_of_pillow_gets_out() -> None:
    data = with_orientation(gradient(), 1, "JPEG").replace(b"MM\0*", b"MM\0\x2a\xff"[:4])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        decode(data)
        failure(bomb(10_000, 10_000))
    assert not caught


@pytest.mark.parametrize(
    ("data", "error_type"),
    [
        (b"", "empty"),
        (b"hello, this is text\n" * 9, "not_an_image"),
        (b"<html><body>404</body></html>", "not_an_image"),
        (bytes(range(256)) * 4, "not_an_image"),
        (b"\0" * 4096, "not_an_image"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "unsupported_format"),
        (b"  <!-- drawn --><svg/>", "unsupported_format"),
        (b'<?xml version="1.0"?><feed/>', "not_an_image"),
        (b"%PDF-1.7\n", "unsupported_format"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "unsupported_format"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "unsupported_format"),
        (b"\xff\x0a\xfa\x1f", "unsupported_format"),
        (b"\x89PNG\r\n\x1a\n", "truncated"),
        (b"\xff\xd8\xff", "truncated"),
        (b"GIF89a", "truncated"),
        (b"II*\0\x08\0\0\0", "truncated"),
        (b"RIFF\x10\0\0\0WEBP", "truncated"),
        (bomb(0, 5), "corrupt"),
    ],
)
def test_what_is_no_picture(data: bytes, error_type: str) -> None:
    assert failure(data).error_type == error_type


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "BMP", "AVIF", "GIF", "QOI"])
def test_half_a_file_is_truncated(kind: str) -> None:
    data = encoded(gradient(200, 160), kind)
    assert failure(data[: len(data) // 2]).error_type == "truncated"


def test_damage_in_the_middle_is_corrupt() -> None:
    data = bytearray(encoded(gradient(), "PNG"))
    data[45:60] = bytes(15)
    assert failure(bytes(data)).error_type == "corrupt"


def test_the_error_travels_with_its_type(monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(*_: object) -> Image.Image:
        raise MemoryError

    monkeypatch.setattr(module, "_decode", hungry)
    assert failure(b"x").error_type == "out_of_memory"


EXPECTED = {"picture", "empty", "truncated", "corrupt", "not_an_image"}


def outcome(data: bytes) -> str:
    try:
        decode(data)
    except ImageError as error:
        return error.error_type
    return "picture"


SMALL = [encoded(gradient(9, 7), kind) for kind in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF")]


@pytest.mark.parametrize("data", SMALL, ids=lambda data: data[:4].hex())
def test_every_prefix_is_a_picture_or_an_error(data: bytes) -> None:
    for length in range(0, len(data), max(1, len(data) // 150)):
        assert outcome(data[:length]) in EXPECTED


@settings(max_examples=150, deadline=None)
@given(
    st.sampled_from(SMALL),
    st.lists(st.tuples(st.integers(0, 1 << 16), st.integers(0, 255)), min_size=1, max_size=6),
)
def test_mutants_end_as_a_picture_or_an_error(data: bytes, changes: list[tuple[int, int]]) -> None:
    mutant = bytearray(data)
    for place, value in changes:
        mutant[place % len(mutant)] = value
    assert outcome(bytes(mutant)) in EXPECTED | {"unsupported_format", "too_many_pixels"}
