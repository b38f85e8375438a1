"""A decoded picture of any mode of Pillow → RGB, transparency on white.

Pictures over ``STRIP`` pixels are converted in strips, so that conversion adds the result's four
bytes a pixel to the memory that is needed, and not a dozen.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from PIL import Image, ImageCms

STRIP = 1 << 21  # pixels


def to_rgb(image: Image.Image, from_white: bool = False, unsigned: bool = False) -> Image.Image:
    """The picture as RGB; see ``decode`` for what is done with each mode.

    ``from_white``: the numbers of a greyscale picture in more than 8 bits count from white to
    black. ``unsigned``: its 32-bit numbers have no sign, which Pillow takes for one.
    """
    if image.mode == "RGB" and not image.has_transparency_data:
        # Pillow's conversion to the mode that is there already is a copy, slow for large pictures.
        return image
    convert = _converter(image, from_white, unsigned)
    if convert is None:
        return image.convert("RGB")
    if image.width * image.height <= STRIP:
        return convert(image)
    whole = Image.new("RGB", image.size)
    for top, strip in _strips(image):
        whole.paste(convert(strip), (0, top))
    return whole


def _strips(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    rows = max(1, STRIP // image.width)
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _converter(
    image: Image.Image, from_white: bool, unsigned: bool
) -> Callable[[Image.Image], Image.Image] | None:
    """What makes RGB of a strip; None where Pillow's conversion does."""
    mode = image.mode
    if mode.startswith("I;16"):
        return lambda strip: _from_16_bit(strip, from_white)
    if mode in ("I", "F"):
        low, high = _range(image, unsigned)

        def stretched(strip: Image.Image) -> Image.Image:
            grey = _stretched(_numbers(strip, unsigned), low, high)
            return Image.fromarray(255 - grey if from_white else grey).convert("RGB")

        return stretched
    if mode == "LAB":
        return _from_lab
    if mode in ("La", "RGBa"):
        return lambda strip: _on_white(strip.convert("LA" if mode == "La" else "RGBA"))
    return _on_white if image.has_transparency_data else None


def _from_16_bit(image: Image.Image, from_white: bool) -> Image.Image:
    values = np.asarray(image)
    grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
    if from_white:
        grey = 255 - grey
    clear = image.info.get("transparency")
    if isinstance(clear, int):
        grey[values == clear] = 255
    return Image.fromarray(grey).convert("RGB")


def _from_lab(image: Image.Image) -> Image.Image:
    to_srgb = ImageCms.buildTransform(
        ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB"), "LAB", "RGB"
    )
    converted = ImageCms.applyTransform(image, to_srgb)
    assert converted is not None  # only None when working in place
    return converted


def _on_white(image: Image.Image) -> Image.Image:
    layer = image.convert("RGBA")
    white = Image.new("RGB", layer.size, (255, 255, 255))
    white.paste(layer, mask=layer.getchannel("A"))
    return white


def _numbers(image: Image.Image, unsigned: bool) -> np.ndarray:
    values = np.asarray(image)
    if values.dtype.kind == "f":
        return np.where(np.isfinite(values), values, 0)
    return values.view(np.uint32) if unsigned else values


def _range(image: Image.Image, unsigned: bool) -> tuple[float, float]:
    """The numbers that become black and white, for 32-bit integer or float greyscale.

    Integers that fit 16 bits are taken as 16-bit values (that is how Netpbm files arrive) and
    floats from 0 to 1 as shares of white. Anything else is stretched from its own smallest to its
    largest value; what is not a number becomes black.
    """
    ends = [
        (float(numbers.min()), float(numbers.max()))
        for _, strip in _strips(image)
        for numbers in [_numbers(strip, unsigned)]
    ]
    low, high = min(low for low, _ in ends), max(high for _, high in ends)
    white = 65535.0 if image.mode == "I" else 1.0
    return (0.0, white) if low >= 0 and high <= white else (low, high)


def _stretched(numbers: np.ndarray, low: float, high: float) -> np.ndarray:
    """uint8: ``low`` becomes 0 and ``high`` 255."""
    span = (high - low) or 1.0
    return np.asarray(np.rint((numbers.astype(np.float64) - low) * (255.0 / span)).astype(np.uint8))
