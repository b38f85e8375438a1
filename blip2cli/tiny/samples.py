"""The images in ``sample_images/``: their names, sizes and content.

Every way a file can come is there once: PNG, JPEG, WebP, small and large, wide and tall, in a
sub-folder, and one JPEG stored sideways with an EXIF orientation. They show the tool at work, not
how often the model is right (its model card says that).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image

from blip2cli.tiny.kinds import caption
from blip2cli.tiny.scenes import Scene, draw_scene


@dataclass(frozen=True)
class Sample:
    """One file: its name, its size in pixels as seen, and what is drawn."""

    file_name: str
    size: tuple[int, int]
    kinds: tuple[str, ...]
    background: str
    sideways: bool = False
    seed: int = 0  # where the objects stand

    @property
    def caption(self) -> str:
        """The true caption."""
        return caption(self.kinds, self.background)


SAMPLES = (
    Sample("breakfast.jpg", (640, 480), ("cup", "apple", "banana"), "yellow", seed=24),
    Sample("cats.png", (512, 512), ("cat", "cat", "pizza"), "blue", seed=15),
    Sample("elephant.jpg", (1200, 900), ("elephant",), "green", seed=0),
    Sample("garden.webp", (480, 360), ("flower", "flower", "butterfly"), "teal", seed=33),
    Sample("harbor.webp", (600, 400), ("boat", "boat", "fish"), "white", seed=26),
    Sample("night.png", (320, 320), ("moon", "star", "star"), "black", seed=7),
    Sample("party.jpg", (640, 480), ("cake", "ball", "guitar"), "pink", seed=35),
    Sample("sideways.jpg", (400, 560), ("house", "tree"), "orange", sideways=True, seed=25),
    Sample("farm/cows.jpg", (720, 480), ("cow", "cow", "cow"), "brown", seed=20),
    Sample("farm/stable.png", (256, 256), ("horse", "pig"), "purple", seed=32),
    Sample("street/bus_stop.jpg", (900, 600), ("bus", "bicycle", "umbrella"), "gray", seed=24),
    Sample("street/traffic.png", (150, 110), ("car", "car"), "red", seed=24),
)


def draw_sample(sample: Sample) -> tuple[Image.Image, Scene]:
    """The picture as a viewer shows it, and its scene."""
    rng = np.random.default_rng(sample.seed)
    return draw_scene(rng, sample.size, sample.kinds, sample.background)
