"""Scenes that are hard to see: small, blurred, noisy, and JPEGs of quality 10."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from PIL import Image, ImageFilter

from training.random_scenes import random_kinds, random_scene

MOST_OBJECTS = 4
SIDE = (40, 110)  # pixels of the shorter side
QUALITY = 10


def hard_scene(rng: np.random.Generator) -> tuple[Image.Image, str]:
    """A picture and its true caption."""
    kinds = random_kinds(rng)
    while len(kinds) > MOST_OBJECTS:
        kinds = random_kinds(rng)
    picture, scene = random_scene(rng, kinds=kinds)
    scale = rng.uniform(*SIDE) / min(picture.size)
    size = (max(24, round(picture.width * scale)), max(24, round(picture.height * scale)))
    picture = picture.resize(size, Image.Resampling.BICUBIC)
    picture = picture.filter(ImageFilter.GaussianBlur(rng.uniform(0, 0.9)))
    noise = rng.standard_normal((picture.height, picture.width, 3)) * rng.uniform(0, 12)
    pixels = np.clip(np.asarray(picture, np.float64) + noise, 0, 255)
    return Image.fromarray(pixels.astype(np.uint8)), scene.caption


def draw_hard_scenes(folder: Path, count: int, seed: int) -> Path:
    """Draw ``count`` JPEGs into a folder; returns the table of references beside it."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(seed)
    references = folder.with_name(f"{folder.name}.references.jsonl")
    with references.open("w", encoding="utf-8") as file:
        for number in range(count):
            picture, caption = hard_scene(rng)
            name = f"{number:06d}.jpg"
            picture.save(folder / name, quality=QUALITY)
            print(json.dumps({"file_name": name, "caption": caption}), file=file)
    return references
