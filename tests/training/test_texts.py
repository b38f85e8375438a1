from __future__ import annotations

import random
import re

import numpy as np
import pytest

from training.random_scenes import random_scene
from training.texts import roughened, scene_texts

SCENES = [random_scene(np.random.default_rng(seed), (64, 64))[1] for seed in range(40)]


def test_texts_come_in_the_published_forms() -> None:
    rng = random.Random(3)
    for scene in SCENES:
        first, *questions = scene_texts(rng, scene, 3)
        assert first.target.strip() == scene.caption
        assert first.target.startswith(" ") == bool(first.prompt)
        for text in questions:
            assert re.fullmatch(r"Question: .+ (Answer|Short answer):", text.prompt)
            assert text.target.startswith(" ")


@pytest.mark.parametrize("seed", range(5))
def test_roughened_questions_keep_their_words(seed: int) -> None:
    rng = random.Random(seed)
    for _ in range(50):
        rough = roughened(rng, "is there a cat?")
        assert rough.lower().rstrip("?") == "is there a cat"
