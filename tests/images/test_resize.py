"""The quick resize is Pillow's, bit for bit, or is Pillow's own."""

from __future__ import annotations

import subprocess
import sys
import threading

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image

from blip2cli.images import resize
from blip2cli.images.decode import decode
from blip2cli.images.resize import to_planes
from tests.images.pictures import PHOTOGRAPHS, encoded, photograph

Filter = Image.Resampling
QUICK = [Filter.BOX, Filter.BILINEAR, Filter.HAMMING, Filter.BICUBIC, Filter.LANCZOS]


def pillows(image: Image.Image, width: int, height: int, resample: Filter) -> np.ndarray:
    return np.asarray(image.resize((width, height), resample)).transpose(2, 0, 1)


def quick(image: Image.Image, width: int, height: int, resample: Filter) -> np.ndarray | None:
    rule = resize._rule(torch)
    assert rule is not None
    return resize._resize(torch, image, width, height, resample, rule)


def noise(width: int, height: int, seed: int, kind: str = "noise") -> Image.Image:
    random = np.random.default_rng(seed)
    values = random.integers(0, 256, (height, width, 3))
    if kind == "extremes":  # the largest sums there are, and results that have to be cut off
        values = (values > 127) * 255
    elif kind == "stripes":
        values = np.broadcast_to((np.arange(width) % 2 * 255)[None, :, None], values.shape)
    elif kind == "flat":
        values = np.broadcast_to(values[:1, :1], values.shape)
    return Image.fromarray(values.astype(np.uint8))


SIDE = st.integers(1, 420)


@settings(max_examples=120, deadline=None, derandomize=True)
@example(640, 480, 224, 224, Filter.BICUBIC, "noise", 0)
@example(427, 640, 224, 224, Filter.BICUBIC, "noise", 0)  # Pillow 13 begins with the columns
@example(3001, 7, 224, 224, Filter.BICUBIC, "extremes", 0)
@example(5, 2999, 364, 364, Filter.BICUBIC, "extremes", 0)
@example(1, 1, 64, 64, Filter.LANCZOS, "noise", 0)
@example(5000, 9, 3, 2, Filter.LANCZOS, "extremes", 0)  # 10,000 addends
@given(SIDE, SIDE, SIDE, SIDE, st.sampled_from(QUICK), st.sampled_from(["noise", "extremes", "stripes", "flat"]), st.integers(0, 9))  # fmt: skip
def test_every_size_and_filter_equals_pillow(
    width: int, height: int, out_width: int, out_height: int, resample: Filter, kind: str, seed: int
) -> None:
    if width == out_width or height == out_height:
        out_width, out_height = width + 1, height + 1
    image = noise(width, height, seed, kind)
    found = quick(image, out_width, out_height, resample)
    if found is not None:
        wanted = pillows(image, out_width, out_height, resample)
        assert found.dtype == np.uint8
        assert found.flags.c_contiguous
        assert np.array_equal(found, wanted)
    # Only where a thousand pixels become one does float32 not reach.
    assert found is not None or max(width / out_width, height / out_height) > 250


@pytest.mark.parametrize("size", [224, 364])
@pytest.mark.parametrize("name", PHOTOGRAPHS)
def test_photographs_equal_pillow(name: str, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    image = decode(encoded(Image.open(_file(name)).convert("RGB"), "JPEG")).image
    wanted = pillows(image, size, size, Filter.BICUBIC)
    monkeypatch.delattr(Image.Image, "resize")  # the coefficients are known by then, or not
    resize._coefficients.cache_clear()
    with pytest.raises(AttributeError):
        to_planes(image, size, size, Filter.BICUBIC)
    monkeypatch.undo()
    assert np.array_equal(to_planes(image, size, size, Filter.BICUBIC), wanted)
    monkeypatch.delattr(Image.Image, "resize")
    assert np.array_equal(to_planes(image, size, size, Filter.BICUBIC), wanted)


def _file(name: str) -> object:
    import io

    return io.BytesIO(photograph(name))
