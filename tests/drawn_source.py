"""A source folder of small drawn scenes, with broken files among them."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np

from training.random_scenes import random_scene

# Of every eight images two are broken, in two different ways and not in the same batch.
_NO_PICTURE, _TRUNCATED = 2, 7


def draw_source(folder: Path, count: int, repaired: bool = False) -> Path:
    """Fill the new ``folder`` with ``count`` images and return it.

    With ``repaired`` the truncated ones are whole, and all others the same as without.
    """
    folder.mkdir(parents=True)
    rng = np.random.default_rng(2023)
    for number in range(count):
        buffer = io.BytesIO()
        random_scene(rng, (64, 56))[0].save(buffer, "PNG")
        data = buffer.getvalue()
        if number % 8 == _NO_PICTURE:
            data = b"this is no picture"
        elif number % 8 == _TRUNCATED and not repaired:
            data = data[: len(data) // 2]
        # Some lie in a sub-folder, so that names have a slash.
        path = folder / ("a" if number % 3 else "b") / f"{number:03}.png"
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(data)
    return folder
