"""What the wordings of questions have in common: blanks to fill, and kinds to fill them with."""

from __future__ import annotations

import random

from blip2cli.tiny.kinds import KINDS
from blip2cli.tiny.scenes import Scene

# The picture, in the words people use for it.
_WHERE = ("in the image", "in the picture", "in the photo", "here", "")


def absent(rng: random.Random, scene: Scene) -> str:
    """A random kind that the scene does not have."""
    present = set(scene.kinds)
    while (kind := rng.choice(KINDS)) in present:
        pass
    return kind


def some_kind(rng: random.Random, scene: Scene, absent_share: float) -> str:
    """A random kind, with probability ``absent_share`` one that the scene does not have."""
    return absent(rng, scene) if rng.random() < absent_share else rng.choice(scene.kinds)


def ask(rng: random.Random, wordings: tuple[str, ...], **words: str) -> str:
    """A wording with its blanks filled; ``{where}`` becomes a phrase or nothing."""
    text = rng.choice(wordings).format(where=rng.choice(_WHERE), **words)
    return " ".join(text.replace(" ?", "?").split()).replace(" ?", "?")
