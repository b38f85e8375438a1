"""Netpbm files, compared with a reading by numpy."""

from __future__ import annotations

import io

import numpy as np
import pytest
from PIL import Image

from blip2cli.images.decode import decode
from tests.images.helpers import failure, pixels

VALUES = np.random.default_rng(1).integers(0, 1 << 16, (5, 7, 3)).astype(np.uint16)


def written(values: np.ndarray, white: int, text: bool) -> bytes:
    """A P2, P3, P5 or P6 file of these values."""
    colours = values.ndim == 3
    kind = (b"P3" if colours else b"P2") if text else (b"P6" if colours else b"P5")
    header = b"%s # a comment\n%d #\n %d\n%d\n" % (kind, values.shape[1], values.shape[0], white)
    if text:
        return header + b"\n".join(b"%d" % value for value in values.ravel())
    return header + values.astype(np.uint8 if white < 256 else ">u2").tobytes()


@pytest.mark.parametrize("white", [1, 100, 255, 256, 4095, 65535])
@pytest.mark.parametrize("text", [True, False])
@pytest.mark.parametrize("colours", [True, False])
def test_numbers_of_every_width(white: int, text: bool, colours: bool) -> None:
    values = VALUES.astype(int) % (white + 1)
    values = values if colours else values[..., 0]
    expected = np.rint(values * (255 / white)).astype(np.uint8)
    expected = expected if colours else np.repeat(expected[..., None], 3, axis=2)
    data = written(values, white, text)
    assert np.array_equal(pixels(data), expected)
    if white == 255:
        assert np.array_equal(Image.open(io.BytesIO(data)).convert("RGB"), expected)
    assert failure(data[:-8]).error_type == "truncated"


def test_bits_and_floats() -> None:
    bits = VALUES[..., 0] > 30000  # black
    expected = np.repeat(np.where(bits, 0, 255)[..., None], 3, axis=2)
    rows = b"\n# half a row\n".join(b"".join(b"%d" % bit for bit in row) for row in bits)
    assert np.array_equal(pixels(b"P1\n7 5\n" + rows), expected)
    assert np.array_equal(pixels(b"P4\n7 5\n" + np.packbits(bits, axis=1).tobytes()), expected)
    shares = (VALUES[..., 0] / 65535).astype("<f4")
    expected = np.rint(shares * 255.0)
    data = b"Pf\n7 5\n-1.0\n" + shares[::-1].tobytes()  # from the bottom up
    assert np.array_equal(pixels(data)[..., 1], expected)
    data = b"Pf\n7 5\n1.0\n" + shares[::-1].astype(">f4").tobytes()
    assert np.array_equal(pixels(data)[..., 1], expected)


@pytest.mark.parametrize(
    "data",
    [
        b"P3 2 1 255\n1 2 3 4 5 x 7",
        b"P3 2 1 255\n1 2 3 4 5 256\n",
        b"P1 2 1\n12\n",
        b"P6 2 1 0\nabcdef",
        b"P6 2 1 65536\nabcdef",
        b"P6 0 1 255\nabcdef",
        b"P6 two 1 255\nabcdef",
        b"Pf 1 1 nan\nabcd",
        b"P2 1 1 255 99999999999999999999999999",
    ],
)
def test_damage(data: bytes) -> None:
    assert failure(data).error_type == "corrupt"


def test_comments_take_no_time_and_large_texts_are_refused() -> None:
    body = b"#\n" * (1 << 19) + b"1 2 3 " * 4 + b"#\n" * (1 << 19)
    assert decode(b"P3 2 2 255\n" + body).width == 2  # with Pillow half a minute
    assert failure(b"P6 " + b"#\n" * 9999 + b"60000 60000 255\n").error_type == "truncated"
    assert failure(b"P6 60000 60000 255\nabc").error_type == "too_many_pixels"
    assert failure(b"P2 12000 12000 99\nabc").error_type == "too_large"
