"""A picture's own memory is read as it lies, and lives as long as it is read."""

from __future__ import annotations

import gc

import numpy as np
import pytest
from PIL import Image

from blip2cli.images.pillow_buffer import ScatteredError, pixels
from tests.images.pictures import gradient


@pytest.mark.parametrize("size", [(1, 1), (31, 17), (640, 480), (2000, 2000)])
def test_pixels_are_those_of_the_picture(size: tuple[int, int]) -> None:
    image = gradient(*size)
    found = pixels(image)
    assert found.dtype == np.int32
    assert found.shape == size[::-1]
    assert not found.flags.writeable
    colours = found.view(np.uint8).reshape(*found.shape, 4)[:, :, :3]
    assert np.array_equal(colours, np.asarray(image))


def test_nothing_is_copied() -> None:
    image = Image.new("RGB", (4, 3))
    found = pixels(image)
    image.putpixel((2, 1), (1, 2, 3))
    assert found[1, 2] & 0xFFFFFF == 0x030201


def test_the_memory_outlives_the_picture() -> None:
    image = gradient(300, 200)
    expected = np.asarray(image).copy()
    found = pixels(image)[50:60]
    del image
    gc.collect()
    others = [Image.new("RGB", (300, 200), "red") for _ in range(20)]  # would take freed memory
    assert np.array_equal(found.view(np.uint8).reshape(10, 300, 4)[:, :, :3], expected[50:60])
    assert len(others) == 20


@pytest.mark.parametrize(
    "image", [Image.new("RGB", (3000, 2000)), Image.new("L", (30, 20)), Image.new("I", (9, 9))]
)
def test_other_memory_layouts_are_refused(image: Image.Image) -> None:
    with pytest.raises(ScatteredError):
        pixels(image)
