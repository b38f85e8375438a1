"""Damaged, hostile and unsupported files become errors with stable names."""

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
from PIL import Image

from blip2cli.errors import ImageError
from blip2cli.images import decode as module
from blip2cli.images.decode import decode
from blip2cli.images.limits import MAX_PIXELS
from tests.images.helpers import failure, pixels
from tests.images.pictures import (
    encoded,
    gradient,
    png_chunk,
    png_with,
    with_orientation,
)


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

    monkeypatch.setattr(module, "_upright", hungry)
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
    assert outcome(bytes(mutant)) in EXPECTED | {
        "unsupported_format",
        "too_many_pixels",
        "too_large",
    }
