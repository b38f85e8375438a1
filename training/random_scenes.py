"""Random scenes: what they hold, how large they are, and how their files are degraded."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageFilter

from blip2cli.tiny.kinds import KINDS
from blip2cli.tiny.scenes import BACKGROUNDS, Scene, draw_scene

# How many objects a scene has. Mostly one to four; five appear so that "five" is a known word.
COUNT_SHARES = {1: 0.20, 2: 0.25, 3: 0.25, 4: 0.26, 5: 0.04}


def random_kinds(
    rng: np.random.Generator, count_shares: Mapping[int, float] = COUNT_SHARES
) -> list[str]:
    """Random kinds, one entry an object; they repeat often, so that counts matter."""
    total = int(rng.choice(list(count_shares), p=list(count_shares.values())))
    different = int(rng.integers(1, total + 1))
    chosen = rng.choice(len(KINDS), size=different, replace=False)
    extra = rng.choice(chosen, size=total - different)
    return [KINDS[i] for i in (*chosen, *extra)]


def random_size(rng: np.random.Generator) -> tuple[int, int]:
    """Random width and height in pixels: small and large, wide and tall."""
    side = np.exp(rng.uniform(np.log(72), np.log(360)))
    aspect = np.exp(np.clip(rng.normal(0, 0.2), -0.5, 0.5)) if rng.random() < 0.6 else 1.0
    return max(56, int(side * aspect**0.5)), max(56, int(side / aspect**0.5))


def random_scene(
    rng: np.random.Generator,
    size: tuple[int, int] | None = None,
    kinds: Sequence[str] | None = None,
) -> tuple[Image.Image, Scene]:
    """Draw a scene on a random background; size and kinds are random unless given."""
    kinds = kinds or random_kinds(rng)
    background = BACKGROUNDS[int(rng.integers(len(BACKGROUNDS)))]
    return draw_scene(rng, size or random_size(rng), kinds, background)


def degrade(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """Random blur, noise, brightness, contrast and JPEG compression, each with some probability."""
    if rng.random() < 0.15:
        image = image.filter(
            ImageFilter.GaussianBlur(rng.uniform(0.2, 0.004 * min(image.size) + 0.3))
        )
    noisy, tinted = rng.random() < 0.2, rng.random() < 0.3
    if noisy or tinted:
        pixels = np.asarray(image, np.float32)
        if tinted:
            pixels = (pixels - 128) * np.float32(rng.uniform(0.88, 1.08)) + 128
            pixels = pixels * np.float32(rng.uniform(0.92, 1.05))
        if noisy:
            noise = rng.standard_normal((*pixels.shape[:2], 1), dtype=np.float32)
            pixels = pixels + noise * np.float32(rng.uniform(1, 9))
        image = Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if rng.random() < 0.5:
        buffer = io.BytesIO()
        image.save(buffer, "JPEG", quality=int(rng.integers(40, 96)))
        image = Image.open(buffer).convert("RGB")
    return image
