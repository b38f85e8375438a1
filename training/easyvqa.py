"""The easy-VQA data set (package ``easy-vqa``, MIT licence): 64×64 pictures of one shape each."""

from __future__ import annotations

import random
from collections import defaultdict
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from training.build import IMAGE_SIZE
from training.texts import OPT_FORMS, Text, caption_texts, question_text, roughened

SHAPES = ("circle", "rectangle", "triangle")
SHAPE_COLORS = ("black", "blue", "brown", "gray", "green", "red", "teal", "yellow")


@dataclass(frozen=True)
class ShapePicture:
    """One picture with all its questions; shape and colour are read off their answers."""

    pixels: NDArray[np.uint8]  # [IMAGE_SIZE, IMAGE_SIZE, 3]
    questions: tuple[tuple[str, str], ...]
    shape: str | None
    color: str | None

    def texts(self, rng: random.Random, questions: int, form: str = OPT_FORMS[0]) -> list[Text]:
        """A caption (where shape and colour are known) and up to ``questions`` of its questions."""
        texts = []
        if self.shape and self.color:
            texts.append(caption_texts(rng, f"a {self.color} {self.shape}"))
        for question, answer in rng.sample(self.questions, min(questions, len(self.questions))):
            texts.append(question_text(roughened(rng, question), answer, form))
        return texts


def load_split(split: str) -> list[ShapePicture]:
    """All pictures of ``train`` (4,000) or ``test`` (1,000), resized to what the model reads."""
    import easy_vqa

    if split == "train":
        columns, paths = easy_vqa.get_train_questions(), easy_vqa.get_train_image_paths()
    else:
        columns, paths = easy_vqa.get_test_questions(), easy_vqa.get_test_image_paths()
    questions = defaultdict(list)
    for question, answer, image in zip(*columns, strict=True):
        questions[image].append((question, answer))
    pictures = []
    for image, path in paths.items():
        with Image.open(path) as opened:
            resized = opened.convert("RGB").resize(
                (IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC
            )
        answers = {answer for _, answer in questions[image]}
        pictures.append(
            ShapePicture(
                np.asarray(resized),
                tuple(questions[image]),
                next((shape for shape in SHAPES if shape in answers), None),
                next((color for color in SHAPE_COLORS if color in answers), None),
            )
        )
    return pictures
