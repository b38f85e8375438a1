"""Scenes: a few emoji on a coloured background, drawn at any size, with what is in them."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from PIL import Image, ImageFilter

from blip2cli.tiny.backgrounds import draw_background
from blip2cli.tiny.kinds import COLORS, KINDS
from blip2cli.tiny.kinds import caption as caption_text
from blip2cli.tiny.sprites import sprites

BACKGROUNDS = tuple(COLORS)
MAX_OBJECTS = 5
# How many objects a scene has. Mostly one to four; five appear so that "five" is a known word.
COUNT_SHARES = {1: 0.20, 2: 0.25, 3: 0.25, 4: 0.26, 5: 0.04}
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
    """What is in a picture."""

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


def random_kinds(
    rng: np.random.Generator, count_shares: Mapping[int, float] = COUNT_SHARES
) -> list[str]:
    """The kinds of a scene, one entry an object; kinds repeat often, so that counts matter."""
    total = int(rng.choice(list(count_shares), p=list(count_shares.values())))
    different = int(rng.integers(1, total + 1))
    chosen = rng.choice(len(KINDS), size=different, replace=False)
    extra = rng.choice(chosen, size=total - different)
    return [KINDS[i] for i in (*chosen, *extra)]


def _canvas_size(rng: np.random.Generator) -> tuple[int, int]:
    """Width and height in pixels: small and large, wide and tall."""
    side = np.exp(rng.uniform(np.log(72), np.log(360)))
    aspect = np.exp(np.clip(rng.normal(0, 0.2), -0.5, 0.5)) if rng.random() < 0.6 else 1.0
    return max(56, int(side * aspect**0.5)), max(56, int(side / aspect**0.5))


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
    rng: np.random.Generator,
    size: tuple[int, int] | None = None,
    kinds: list[str] | None = None,
    background: str | None = None,
) -> tuple[Image.Image, Scene]:
    """Draw one scene: an RGB picture and what is in it. What is not given is drawn by chance."""
    kinds = kinds or random_kinds(rng)
    name = background or BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    w, h = size or _canvas_size(rng)
    canvas = Image.fromarray(draw_background(rng, name, h, w).astype(np.uint8))
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
    return canvas, Scene(tuple(placed), name)


def weather(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """What happens to files on their way: blur, noise, changed brightness, JPEG compression."""
    if rng.random() < 0.15:
        image = image.filter(
            ImageFilter.GaussianBlur(rng.uniform(0.2, 0.004 * min(image.size) + 0.3))
        )
    shake, tint = rng.random() < 0.2, rng.random() < 0.3
    if shake or tint:
        pixels = np.asarray(image, np.float32)
        if tint:
            pixels = (pixels - 128) * np.float32(rng.uniform(0.88, 1.08)) + 128
            pixels = pixels * np.float32(rng.uniform(0.92, 1.05))
        if shake:
            noise = rng.standard_normal((*pixels.shape[:2], 1), dtype=np.float32)
            pixels = pixels + noise * np.float32(rng.uniform(1, 9))
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(40, 96)))
        image = Image.open(buffer).convert("RGB")
    return image
