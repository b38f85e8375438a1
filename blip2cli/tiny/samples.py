"""The pictures in ``sample_images/``: ``python -m blip2cli.tiny.samples FOLDER`` draws them.

Every way a file can come is there once: PNG, JPEG, WebP, small and large, wide and tall, in a
sub-folder, and one JPEG stored sideways with an EXIF orientation. They show the tool at work, not
how often the model is right (its model card says that).
"""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from blip2cli.tiny.scenes import Scene, draw_scene

ORIENTATION = 0x0112  # EXIF tag
SIDEWAYS = 6  # "rotate 90° clockwise to view"


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
        return draw_scene(np.random.default_rng(0), (64, 64), list(self.kinds), self.background)[
            1
        ].caption


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
    return draw_scene(rng, sample.size, list(sample.kinds), sample.background)


def write_samples(folder: Path) -> None:
    """Draw every sample into ``folder``."""
    for sample in SAMPLES:
        path = folder / sample.file_name
        path.parent.mkdir(parents=True, exist_ok=True)
        image, _ = draw_sample(sample)
        if sample.sideways:
            exif = Image.Exif()
            exif[ORIENTATION] = SIDEWAYS
            image.transpose(Image.Transpose.ROTATE_90).save(path, quality=90, exif=exif)
        else:
            image.save(path, quality=90)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description="Draw the sample images.")
    parser.add_argument("folder", type=Path)
    write_samples(parser.parse_args().folder)
