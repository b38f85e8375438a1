"""Every task and way to choose tokens, on the embedded models: run on a device and on the CPU."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from blip2cli.api import Blip2

IMAGES = sorted(map(str, (Path(__file__).parents[2] / "sample_images").rglob("*.*")))[:8]
FEW = IMAGES[:3]
QUESTIONS = ["What is in the picture?", "What colour is the sky?"]
TEXTS = ["a dog", "two red cats on a mat"]
CHOICES = ["a red circle", "blue", "two dogs and a cat"]
TOLERANCE = 1e-4  # of numbers, such as log-probabilities of about -20

Tasks = dict[str, Callable[[Blip2], Any]]

_WRITING: Tasks = {
    "captions": lambda model: model.caption(IMAGES),
    "behind a prompt": lambda model: model.caption(IMAGES, "a picture of", max_new_tokens=8),
    "drawn": lambda model: model.caption(
        FEW, temperature=1.2, num_captions=2, seed=3, max_new_tokens=8
    ),
    "drawn from the likeliest": lambda model: model.caption(
        FEW, top_k=20, top_p=0.9, max_new_tokens=8
    ),
    "beams": lambda model: model.caption(
        FEW, num_beams=3, num_captions=2, length_penalty=-1.0, max_new_tokens=8
    ),
    "beams by rules": lambda model: model.caption(
        FEW, num_beams=2, no_repeat_ngram_size=2, max_new_tokens=6
    ),
    "rules": lambda model: model.caption(
        FEW,
        repetition_penalty=1.3,
        no_repeat_ngram_size=2,
        min_new_tokens=3,
        max_new_tokens=8,
    ),
    "written again": lambda model: model.caption(FEW, retry_degenerate=True, max_new_tokens=20),
    "answers": lambda model: model.ask(IMAGES, QUESTIONS, max_new_tokens=6),
    "a conversation": lambda model: model.ask(
        FEW, ["What is it?", "Is {answer} big?"], max_new_tokens=4
    ),
    "closed choices": lambda model: model.ask(FEW, QUESTIONS, choices=CHOICES, choice_scores=True),
    "choices by pmi": lambda model: model.ask(FEW, QUESTIONS[:1], choices=CHOICES, norm="pmi"),
    "vectors of images": lambda model: model.embed(FEW, pool="mean"),
    "vectors of queries": lambda model: model.embed(FEW, "qformer"),
    "vectors of texts": lambda model: model.embed_texts(TEXTS),
}
_MATCHING: Tasks = {
    "projections": lambda model: model.embed(FEW, "projection"),
    "vectors of images": lambda model: model.embed(FEW),
    "images with texts": lambda model: model.embed(FEW, "multimodal", text=TEXTS),
    "contrast": lambda model: model.ask(FEW, choices=CHOICES),
    "match": lambda model: model.ask(FEW, choices=CHOICES, match=True),
    "projections of texts": lambda model: model.embed_texts(TEXTS),
    "vectors of texts": lambda model: model.embed_texts(TEXTS, "qformer"),
}
TASKS = {"tiny": _WRITING, "tiny-t5": _WRITING, "tiny-itm": _MATCHING}


def difference(one: Any, other: Any) -> float:
    """The largest difference between numbers of two results; infinite where anything else
    differs."""
    if isinstance(one, np.ndarray):
        same = one.shape == other.shape and one.dtype == other.dtype
        return float(np.abs(one - other).max()) if same else float("inf")
    if isinstance(one, dict):
        one, other = list(one.items()), list(other.items())
    if isinstance(one, list | tuple):
        if len(one) != len(other):
            return float("inf")
        return max((difference(*pair) for pair in zip(one, other, strict=True)), default=0.0)
    if isinstance(one, float) and isinstance(other, float):
        return abs(one - other)
    return 0.0 if one == other else float("inf")


def differing(tasks: Tasks, cpu: Blip2, device: Blip2, times: int = 2) -> dict[str, float]:
    """The tasks whose results on ``device`` are not those on ``cpu``, by how much.

    Each is run several times: steps are captured as graphs once they come again.
    """
    found = {}
    for name, task in tasks.items():
        expected = task(cpu)
        far = max(difference(expected, task(device)) for _ in range(times))
        if far > TOLERANCE:
            found[name] = far
    return found
