"""Pictures made hard on purpose, with questions whose answers are known.

Held-out scenes of ``training`` and the test split of easy-VQA, with noise, blur, JPEG quality 10 or
few pixels, so that the embedded models err. Questions have their choices.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Iterator, Sequence
from pathlib import Path

import easy_vqa
import numpy as np
from PIL import Image, ImageFilter

from blip2cli.tiny.kinds import COLORS, KINDS, NUMBERS, with_article
from training.easyvqa import SHAPE_COLORS, SHAPES
from training.evaluate import HELD_OUT_SEED
from training.questions import scene_question
from training.random_scenes import random_scene

# The choices of a question, by what its answer is one of.
_CHOICES: tuple[tuple[str, ...], ...] = (
    ("yes", "no"),
    ("left", "right"),
    NUMBERS,
    SHAPES,
    tuple(dict.fromkeys((*COLORS, *SHAPE_COLORS))),
    tuple(map(with_article, KINDS)),
)
VARIANTS = 3  # of each picture of easy-VQA, which has 1,000 for tests


def choices_of(answer: str) -> tuple[str, ...] | None:
    """What a question with this answer is chosen from; None where that is no short list."""
    return next((choices for choices in _CHOICES if answer in choices), None)


def harden(rng: np.random.Generator, image: Image.Image) -> Image.Image:
    """The picture with noise, blurred, as JPEG of quality 10, or small; how much is random."""
    kind = int(rng.integers(4))
    strength = float(rng.uniform(0.2, 1.0))
    if kind == 0:
        noise = rng.standard_normal((image.height, image.width, 3), dtype=np.float32)
        pixels = np.asarray(image, np.float32) + noise * np.float32(120 * strength)
        return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))
    if kind == 1:
        radius = 0.045 * strength * min(image.size)
        return image.filter(ImageFilter.GaussianBlur(radius))
    side = int(64 - 44 * strength) if kind == 3 else int(110 - 60 * strength)
    scale = side / max(image.size)
    size = (max(8, round(image.width * scale)), max(8, round(image.height * scale)))
    small = image.resize(size, Image.Resampling.BICUBIC)
    if kind == 3:
        return small
    buffer = io.BytesIO()
    small.save(buffer, "JPEG", quality=10)
    return Image.open(buffer).convert("RGB")


def write_scenes(folder: Path, count: int) -> Path:
    """Hard scenes with three questions each; the path of their table."""
    rng, source = np.random.default_rng(HELD_OUT_SEED), random.Random(HELD_OUT_SEED)

    def pictures() -> Iterator[tuple[str, Image.Image, list[tuple[str, str]]]]:
        for number in range(count):
            image, scene = random_scene(rng)
            questions: dict[str, str] = {}
            while len(questions) < 3:
                question, answer = scene_question(source, scene)
                if choices_of(answer) is not None:
                    questions[question] = answer
            yield f"{number:06}.png", harden(rng, image), list(questions.items())

    return _write(folder, pictures())


def write_shapes(folder: Path, count: int) -> Path:
    """Hard pictures of easy-VQA's test split with all their questions; the path of their table."""
    rng = np.random.default_rng(HELD_OUT_SEED)
    asked: dict[int, list[tuple[str, str]]] = {}
    for question, answer, image in zip(*easy_vqa.get_test_questions(), strict=True):
        asked.setdefault(image, []).append((question, answer))
    paths = dict(list(easy_vqa.get_test_image_paths().items())[:count])

    def pictures() -> Iterator[tuple[str, Image.Image, list[tuple[str, str]]]]:
        for number, path in paths.items():
            with Image.open(path) as opened:
                image = opened.convert("RGB")
            for variant in range(VARIANTS):
                yield f"{number:05}-{variant}.png", harden(rng, image), asked[number]

    return _write(folder, pictures())


def _write(
    folder: Path, pictures: Iterator[tuple[str, Image.Image, Sequence[tuple[str, str]]]]
) -> Path:
    images, table = folder / "images", folder / "questions.jsonl"
    if table.exists():
        return table
    images.mkdir(parents=True)
    with table.open("w") as file:
        for name, image, questions in pictures:
            image.save(images / name)
            for question, answer in questions:
                row = {"file_name": name, "question": question, "answer": answer}
                print(json.dumps(row | {"choices": choices_of(answer)}), file=file)
    return table
