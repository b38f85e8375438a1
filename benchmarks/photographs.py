"""Photographs to preprocess: those that scikit-image carries, cut and brought to a size.

Four pictures under CC0 (chelsea, coffee, astronaut, rocket) give as many files as are wanted, each
another cut of one of them. They are enlarged where they are smaller than the size, so a camera's
noise is added: without it a JPEG of 12 megapixels would be far quicker to decode than a real one.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import numpy as np
from PIL import Image
from work import draw_images, grain

NAMES = ("chelsea.png", "coffee.png", "astronaut.png", "rocket.jpg")


def photographs(folder: Path, count: int, size: tuple[int, int]) -> list[str]:
    """Files of ``size`` (width, height); drawn ones where scikit-image is not installed."""
    place = folder / f"{size[0]}x{size[1]}"
    found = find_spec("skimage")
    if found is None or found.origin is None:
        return draw_images(place, count, size)
    place.mkdir(parents=True, exist_ok=True)
    paths = [place / f"{number:06d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            source = Path(found.origin).parent / "data" / NAMES[number % len(NAMES)]
            with Image.open(source) as image:
                _cut(image.convert("RGB"), number, size).save(path, quality=90)
    return [str(path) for path in paths]


def _cut(image: Image.Image, number: int, size: tuple[int, int]) -> Image.Image:
    """A cut of the wanted proportions from somewhere in the picture."""
    rng = np.random.default_rng(number)
    scale = min(image.width / size[0], image.height / size[1]) * rng.uniform(0.85, 1)
    width, height = size[0] * scale, size[1] * scale
    left = rng.uniform(0, image.width - width)
    top = rng.uniform(0, image.height - height)
    box = (left, top, left + width, top + height)
    enlarged = image.resize(size, Image.Resampling.LANCZOS, box)
    return grain(enlarged, rng, 4 if scale > 0.5 else 9)
