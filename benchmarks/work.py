"""What is raced: images, what is asked of each, and how long each text is to be.

With random weights no text ends by itself, so every text has a length of its own, drawn from the
lengths of COCO's captions and the same for every peer.
"""

from __future__ import annotations

import random
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

QUESTIONS = (
    "what is in the picture?",
    "how many are there?",
    "what colour is it?",
    "where is it?",
    "is there a dog?",
)
CHOICES = ("yes", "no", "two of them")

# Tokens of a COCO caption: their number, and how many captions of 100 have it (mean
# 11, 6 to 20 as in the annotations of 2014; Chen et al., "Microsoft COCO Captions",
# arXiv 1504.00325).
LENGTHS = {7: 3, 8: 11, 9: 16, 10: 19, 11: 16, 12: 12, 13: 8, 14: 5, 15: 4, 16: 2, 18: 2, 20: 2}


@dataclass(frozen=True)
class Work:
    """One race's work, or a part of it.

    What a peer answers is, by kind: caption, ask and beam token ids [image][prompt][token];
    choices log-probabilities [image][choice]; embed vectors [image][number]; vision a sample of
    the states [image][number]; pixels a digest of the processed pixels [image].
    """

    kind: str
    files: tuple[str, ...]
    prompts: tuple[str | None, ...] = (None,)  # asked of every image; None: a caption without one
    lengths: tuple[tuple[int, ...], ...] | None = None  # [image][prompt] tokens; None: by the model
    max_new_tokens: int = 20
    num_beams: int = 1
    choices: tuple[str, ...] = ()
    # [image][text] ids that ``forward`` scores in place of the choices, where there are some
    given: tuple[tuple[tuple[int, ...], ...], ...] | None = None

    def as_json(self) -> dict[str, Any]:
        """Plain values for another process."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> Work:
        """What ``as_json`` gave."""
        return cls(**{name: _frozen(value) for name, value in values.items()})


def _frozen(value: Any) -> Any:
    """Lists as tuples, all the way down."""
    return tuple(map(_frozen, value)) if isinstance(value, list) else value


@dataclass(frozen=True)
class Setting:
    """What a careful user tries out."""

    batch_size: int = 1
    workers: int = 0  # of the DataLoader; 0: the images are read in the process that computes


def sampled(states: Any) -> list[list[float]]:
    """Numbers of every 16th position of states [images, positions, width], a tensor or an array."""
    found: list[list[float]] = states[:, ::16].reshape(len(states), -1).tolist()
    return found


def draw_lengths(images: int, prompts: int, seed: int = 0) -> tuple[tuple[int, ...], ...]:
    """How many tokens each text has."""
    rng = random.Random(seed)
    tokens, weights = list(LENGTHS), list(LENGTHS.values())
    return tuple(tuple(rng.choices(tokens, weights, k=prompts)) for _ in range(images))


def draw_images(folder: Path, count: int, size: tuple[int, int] = (320, 240)) -> list[str]:
    """JPEGs of soft random colours, as slow to decode as photographs of their size are."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{number:06d}.jpg" for number in range(count)]
    for number, path in enumerate(paths):
        if not path.exists():
            _draw(number, size).save(path, quality=90)
    return [str(path) for path in paths]


def _draw(number: int, size: tuple[int, int]) -> Image.Image:
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (size[1] // 16, size[0] // 16, 3), np.uint8)
    large = Image.fromarray(small).resize(size, Image.Resampling.BICUBIC)
    return grain(large, rng)


def grain(image: Image.Image, rng: np.random.Generator, strength: int = 12) -> Image.Image:
    """The picture with a camera's noise: what makes a JPEG as slow to decode as a photograph."""
    noise = rng.integers(-strength, strength + 1, (image.height, image.width, 1), np.int16)
    pixels = np.clip(np.asarray(image).astype(np.int16) + noise, 0, 255)
    return Image.fromarray(pixels.astype(np.uint8))
