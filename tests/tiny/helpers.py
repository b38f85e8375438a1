"""What the tests of the embedded models share."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from transformers import Blip2ForConditionalGeneration

import blip2cli.tiny
from blip2cli.tiny.scenes import Scene
from training.data import draw_example
from training.easyvqa import load_split
from training.gallery import Gallery, embed_all

WEIGHTS = Path(blip2cli.tiny.__file__).parent / "weights"


def load_tiny() -> Blip2ForConditionalGeneration:
    model: Blip2ForConditionalGeneration = Blip2ForConditionalGeneration.from_pretrained(
        WEIGHTS / "tiny"
    )
    return model.eval()


def small_gallery(tiny: Blip2ForConditionalGeneration, scenes: int, shapes: int) -> Gallery:
    """A small gallery."""
    rng = np.random.default_rng(31)
    drawn: list[tuple[NDArray[np.uint8], Scene]] = [draw_example(rng) for _ in range(scenes)]
    known = load_split("test")[:shapes]
    pictures = [pixels for pixels, _ in drawn] + [shape.pixels for shape in known]
    return Gallery([scene for _, scene in drawn], known, *embed_all(tiny, pictures))
