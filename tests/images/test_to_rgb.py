"""Pictures of every colour model and depth, compared with a reading by hand."""

from __future__ import annotations

import struct

import numpy as np
import pytest
from PIL import Image

from blip2cli.images.to_rgb import STRIP, to_rgb
from tests.images.hand_made import DRAW, HEIGHT, WIDTH, numbers, png, tiff
from tests.images.helpers import pixels
from tests.images.pictures import encoded, png_chunk

# Colour and alpha are each cut to 8 bits (up to 1), and their product is rounded.
ON_WHITE = 2.51


def to_8_bits(values: np.ndarray, bits: int) -> np.ndarray:
    return values * (255 / ((1 << bits) - 1))


def on_white(colour: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    return colour * alpha + 255 * (1 - alpha)


def same(data: bytes, expected: np.ndarray, within: float = 1.01) -> None:
    found = pixels(data).astype(float)
    wrong = np.abs(found - np.broadcast_to(expected, found.shape))
    assert wrong.max() <= within, (found[0, :4], np.broadcast_to(expected, found.shape)[0, :4])


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_png_grey_with_and_without_a_clear_value(bits: int) -> None:
    values = numbers(bits)
    expected = to_8_bits(values, bits)
    same(png(values, bits, 0), expected)
    for clear in (0, (1 << bits) - 1, int(values[3, 3, 0])):
        chunk = png_chunk(b"tRNS", struct.pack(">H", clear))
        same(png(values, bits, 0, chunk), np.where(values == clear, 255, expected))


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("colours", [2, 4, 6])
def test_png_in_colour_and_with_alpha(bits: int, colours: int) -> None:
    values = numbers(bits, {2: 3, 4: 2, 6: 4}[colours])
    expected = to_8_bits(values, bits)
    if colours > 2:
        share = values[..., -1:] / ((1 << bits) - 1)
        expected = on_white(expected[..., :-1], share)
    same(png(values, bits, colours), expected, within=ON_WHITE)
    if colours == 2:
        # In 16 bits Pillow leaves the upper 8, by which clear pixels are told.
        for clear in (values[2, 2], np.array([255, 255, 255]), np.array([1, 2, 3])):
            if bits == 16:
                values[1, 1] = clear
            chunk = png_chunk(b"tRNS", struct.pack(">3H", *map(int, clear)))
            here = (values >> (bits - 8) == clear >> (bits - 8)).all(axis=2, keepdims=True)
            expected = np.where(here, 255, to_8_bits(values, bits))
            same(png(values, bits, 2, chunk), expected)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_png_palette_with_and_without_alpha(bits: int) -> None:
    values = numbers(bits)
    palette = DRAW.integers(0, 256, (1 << bits, 3))
    chunk = png_chunk(b"PLTE", palette.astype(np.uint8).tobytes())
    same(png(values, bits, 3, chunk), palette[values[..., 0]])
    alpha = DRAW.integers(0, 256, 1 << bits)
    clear = png_chunk(b"tRNS", alpha.astype(np.uint8).tobytes())
    share = (alpha / 255)[values]
    same(png(values, bits, 3, chunk, clear), on_white(palette[values[..., 0]], share))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("from_white", [True, False])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
def test_tiff_grey_from_black_and_from_white(bits: int, from_white: bool, order: str) -> None:
    values = numbers(bits)
    expected = to_8_bits(values, bits)
    data = tiff(values, bits, 0 if from_white else 1, order)
    same(data, 255 - expected if from_white else expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("from_white", [True, False])
@pytest.mark.parametrize("kind", ["u4", "i4", "i2", "f4"])
def test_tiff_grey_of_wide_numbers(kind: str, from_white: bool, order: str) -> None:
    if kind == "f4":
        values = DRAW.random((HEIGHT, WIDTH, 1))
        values[0, :2, 0] = 0, 1
        sample_format = 3
    else:
        info = np.iinfo(kind)
        values = DRAW.integers(info.min, info.max, (HEIGHT, WIDTH, 1), endpoint=True)
        values[0, :2, 0] = info.min, info.max
        sample_format = 1 if kind == "u4" else 2
    span = float(values.max()) - float(values.min())
    expected = (values - float(values.min())) * (255 / span)
    data = tiff(
        values,
        int(kind[1]) * 8,
        0 if from_white else 1,
        order,
        body=values.astype(order + kind).tobytes(),
        t339=(sample_format,),
    )
    same(data, 255 - expected if from_white else expected)


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("planar", [True, False])
@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_in_colour(bits: int, planar: bool, order: str) -> None:
    values = numbers(bits, 3)
    expected = to_8_bits(values, bits)
    same(tiff(values, bits, 2, order, planar=planar), expected)
    same(tiff(values, bits, 2, order, planar=planar, deflated=True), expected)
    alpha = numbers(bits, 4)
    share = alpha[..., 3:] / ((1 << bits) - 1)
    straight = on_white(to_8_bits(alpha[..., :3], bits), share)
    if planar:
        same(tiff(alpha, bits, 2, order, planar=True, t338=(2,)), straight, within=ON_WHITE)
    else:
        same(tiff(alpha, bits, 2, order, t338=(2,)), straight, within=ON_WHITE)
        # Associated alpha: colours are multiplied by it already.
        alpha[..., :3] = np.minimum(alpha[..., :3], alpha[..., 3:])
        expected = to_8_bits(alpha[..., :3], bits) + 255 * (1 - share)
        expected[0, 0], share[0, 0] = 255, 0  # clear
        alpha[0, 0] = 0
        same(tiff(alpha, bits, 2, order, t338=(1,)), expected, within=3.01)
        same(tiff(alpha, bits, 2, order, t338=(0,)), to_8_bits(alpha[..., :3], bits))


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [8, 16])
def test_tiff_cmyk_and_grey_with_alpha(bits: int, order: str) -> None:
    ink = numbers(bits, 4) / ((1 << bits) - 1)
    values = np.rint(ink * ((1 << bits) - 1)).astype(np.int64)
    expected = 255 * (1 - ink[..., :3]) * (1 - ink[..., 3:])
    same(tiff(values, bits, 5, order, t332=(1,)), expected, within=3)
    if bits == 8:
        values = numbers(8, 2)
        share = values[..., 1:] / 255
        same(tiff(values, 8, 1, order, t338=(2,)), on_white(values[..., :1], share))
        values[..., 0] = np.minimum(values[..., 0], values[..., 1])
        same(
            tiff(values, 8, 1, order, t338=(1,)),
            values[..., :1] + 255 * (1 - values[..., 1:] / 255),
            within=ON_WHITE,
        )
        same(tiff(values, 8, 1, order, t338=(0,)), values[..., :1])


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_tiff_palette(bits: int) -> None:
    values = numbers(bits)
    palette = DRAW.integers(0, 256, (3, 1 << bits))
    data = tiff(values, bits, 3, t320=tuple(int(v) * 257 for v in palette.ravel()))
    same(data, palette.T[values[..., 0]])


def adobe_removed(data: bytes) -> bytes:
    start = data.index(b"\xff\xee")
    return data[:start] + data[start + 2 + int.from_bytes(data[start + 2 : start + 4], "big") :]


def test_jpeg_cmyk_counts_ink_as_its_marker_says() -> None:
    ink = np.zeros((HEIGHT, WIDTH, 4), np.uint8)
    ink[:, :, 0] = 200  # of cyan
    data = encoded(Image.fromarray(ink, "CMYK"), "JPEG", quality=100)
    same(data, np.array([55, 255, 255]), within=4)
    # Without Adobe's marker no ink is 0, as libjpeg and libvips have it; Pillow inverts it as well.
    turned = encoded(Image.fromarray(255 - ink, "CMYK"), "JPEG", quality=100)
    same(adobe_removed(turned), np.array([55, 255, 255]), within=4)


def test_large_pictures_are_converted_in_strips() -> None:
    width, height = 1024, STRIP // 1024 + 10
    colours = DRAW.integers(0, 256, (height, width, 4), np.uint8)
    floats = DRAW.random((height, width)).astype(np.float32) * 9 - 3
    floats[::512, 0], floats[::512, 1] = -3, 6  # so that both halves are stretched alike
    with_alpha = Image.fromarray(colours)
    deep = Image.fromarray(np.ascontiguousarray(colours.view(np.uint16)[..., 0]))
    for whole in (with_alpha, deep, with_alpha.convert("LA"), Image.fromarray(floats)):
        halves = [whole.crop((0, top, width, top + height // 2)) for top in (0, height // 2)]
        assert width * height // 2 < STRIP < width * height
        assert np.array_equal(to_rgb(whole), np.concatenate([to_rgb(half) for half in halves]))
