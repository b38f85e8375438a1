"""Scenes: images of a few emoji on a coloured background, and their content."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from PIL import Image

from blip2cli.tiny.backgrounds import draw_background
from blip2cli.tiny.kinds import COLORS
from blip2cli.tiny.kinds import caption as caption_text
from blip2cli.tiny.sprites import sprites

BACKGROUNDS = tuple(COLORS)
MAX_OBJECTS = 5
# The longer side of an object as a share of the picture's shorter side, by how many there are.
SIZE_RANGES = {1: (0.2, 0.85), 2: (0.2, 0.5), 3: (0.19, 0.44), 4: (0.19, 0.42), 5: (0.18, 0.34)}


@dataclass(frozen=True)
class Placed:
    """One object of a scene; places and sizes are shares of the picture's width and height."""

    kind: str
    x: float  # centre, 0 left to 1 right
    y: float  # centre, 0 top to 1 bottom
    width: float
    height: float


@dataclass(frozen=True)
class Scene:
    """Content of an image: its objects and the name of its background."""

    objects: tuple[Placed, ...]
    background: str

    @property
    def kinds(self) -> tuple[str, ...]:
        """The kind of every object, one entry each."""
        return tuple(placed.kind for placed in self.objects)

    @property
    def caption(self) -> str:
        """``two cats and a pizza on a blue background``."""
        return caption_text(self.kinds, self.background)


def _cut_out(rng: np.random.Generator, kind: str, side: float) -> Image.Image:
    """The object's picture, mirrored and turned a little, its longer side ``side`` pixels."""
    sprite = sprites()[kind]
    if rng.random() < 0.5:
        sprite = sprite.transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    scale = side / max(sprite.size)
    size = (max(3, round(sprite.width * scale)), max(3, round(sprite.height * scale)))
    resample = (Image.Resampling.BILINEAR, Image.Resampling.BICUBIC)[int(rng.integers(2))]
    turned = rng.random() < 0.7
    if turned and scale > 0.8:
        sprite = sprite.rotate(rng.uniform(-20, 20), resample, expand=True)
        return sprite.resize((round(sprite.width * scale), round(sprite.height * scale)), resample)
    sprite = sprite.resize(size, resample, reducing_gap=2.0)
    if turned:
        sprite = sprite.rotate(rng.uniform(-20, 20), resample, expand=True)
    return sprite


def _place(
    rng: np.random.Generator,
    boxes: list[tuple[int, int, int, int]],
    size: tuple[int, int],
    w: int,
    h: int,
) -> tuple[int, int] | None:
    """A left upper corner where the cut-out hardly overlaps what stands there, or None."""
    for _ in range(30):
        x = int(rng.integers(0, max(1, w - size[0] + 1)))
        y = int(rng.integers(0, max(1, h - size[1] + 1)))
        for bx, by, bw, bh in boxes:
            over_x = min(x + size[0], bx + bw) - max(x, bx)
            over_y = min(y + size[1], by + bh) - max(y, by)
            if over_x > 0 and over_y > 0:
                smaller = min(size[0] * size[1], bw * bh)
                if over_x * over_y > 0.08 * smaller:
                    break
        else:
            return x, y
    return None


def draw_scene(
    rng: np.random.Generator, size: tuple[int, int], kinds: Sequence[str], background: str
) -> tuple[Image.Image, Scene]:
    """Draw a scene of ``kinds`` (one entry an object): an RGB image of ``size`` and its content.

    Places, sizes and textures are random.
    """
    w, h = size
    canvas = Image.fromarray(draw_background(rng, background, h, w).astype(np.uint8))
    low, high = SIZE_RANGES[len(kinds)]
    common = rng.uniform(low, high)
    while True:
        boxes: list[tuple[int, int, int, int]] = []
        cut_outs = []
        for kind in kinds:
            side = np.clip(common * rng.uniform(0.6, 1.5), low, high) * min(w, h)
            cut_out = _cut_out(rng, kind, side)
            corner = _place(rng, boxes, cut_out.size, w, h)
            if corner is None:
                break
            boxes.append((*corner, *cut_out.size))
            cut_outs.append(cut_out)
        if len(boxes) == len(kinds):
            break
        common = max(low, common * 0.85)  # too crowded: smaller, and again
    for cut_out, (x, y, _, _) in zip(cut_outs, boxes, strict=True):
        canvas.paste(cut_out, (x, y), cut_out)
    placed = [
        Placed(kind, (x + bw / 2) / w, (y + bh / 2) / h, bw / w, bh / h)
        for kind, (x, y, bw, bh) in zip(kinds, boxes, strict=True)
    ]
    return canvas, Scene(tuple(placed), background)
