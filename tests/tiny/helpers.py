"""What the tests of the embedded models share."""

from __future__ import annotations

import json
import re
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import Blip2ForConditionalGeneration, PreTrainedModel

import blip2cli.tiny
from blip2cli.tiny.kinds import KINDS
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


def check_float32(model: PreTrainedModel, folder: Path) -> None:
    """The model is computed in float32, though half the bytes are stored."""
    assert model.dtype == torch.float32
    assert json.loads((folder / "config.json").read_text())["dtype"] == "float32"


def check_card(folder: Path, bars: tuple[float, ...], like: str) -> None:
    """The card promises at least ``bars``, and names the published model, licences and objects."""
    card = (folder / "README.md").read_text(encoding="utf-8")
    promised = [float(share) / 100 for share in re.findall(r"\| ([\d.]+)% \|", card)]
    assert all(share >= bar for share, bar in zip(promised, bars, strict=True))
    assert like in card
    assert "SIL Open Font" in card
    assert all(kind in card for kind in KINDS)
