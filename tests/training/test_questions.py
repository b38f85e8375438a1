from __future__ import annotations

import random
import re
from collections import Counter

import numpy as np

from blip2cli.tiny.kinds import ANIMALS, KINDS, NUMBERS, plural, with_article
from blip2cli.tiny.scenes import Placed, Scene
from training.questions import scene_question
from training.random_scenes import random_scene

SCENES = [random_scene(np.random.default_rng(seed), (64, 64))[1] for seed in range(150)]


def place(scene: Scene, kind: str) -> Placed:
    return next(placed for placed in scene.objects if placed.kind == kind)


def check(scene: Scene, question: str, answer: str) -> str:
    """Work the answer out from the scene in another way; returns which sort of question it was."""
    counts = Counter(scene.kinds)
    named = [kind for kind in KINDS if re.search(rf"\b({kind}|{plural(kind)})\b", question)]
    if "background" in question:
        if question.startswith("is "):
            color = next(word for word in question.rstrip("?").split()[::-1])
            assert answer == ("yes" if color == scene.background else "no")
        else:
            assert answer == scene.background
        return "background"
    if re.match(r"how many|what is the number|count", question):
        if named:
            assert answer == NUMBERS[counts[named[0]]]
        elif "animals" in question:
            assert answer == NUMBERS[sum(counts[kind] for kind in ANIMALS)]
        else:
            assert answer == NUMBERS[len(scene.objects)]
        return "count"
    if len(named) == 2:
        first, second = sorted(named, key=lambda kind: question.index(f"the {kind}"))
        if question.startswith(("on which side", "which side")):
            first, second = second, first
        left = place(scene, first).x < place(scene, second).x
        if answer in ("yes", "no"):
            side = "left" if "left" in question else "right"
            assert answer == ("yes" if (side == "left") == left else "no")
            return "side check"
        assert answer == ("left" if left else "right")
        return "left or right"
    if answer in ("yes", "no"):
        assert answer == ("yes" if counts[named[0]] else "no")
        return "presence"
    if answer in ("left", "right"):
        assert answer == ("left" if place(scene, named[0]).x < 0.5 else "right")
        return "half"
    if re.search(r"\b(left|right)\b", question):
        side = "left" if "left" in question else "right"
        assert len(scene.objects) == 2
        extreme = min if side == "left" else max
        assert answer == with_article(extreme(scene.objects, key=lambda placed: placed.x).kind)
        return "beside"
    assert answer == scene.caption.rsplit(" on ", 1)[0]
    return "contents"


def test_answers_are_true() -> None:
    rng = random.Random(0)
    seen = Counter(check(scene, *scene_question(rng, scene)) for scene in SCENES for _ in range(30))
    sorts = {"background", "count", "side check", "left or right", "presence", "half", "beside"}
    assert set(seen) == sorts | {"contents"}
    assert min(seen.values()) > 10


def test_yes_and_no_are_balanced() -> None:
    rng = random.Random(1)
    answers = Counter(scene_question(rng, scene)[1] for scene in SCENES for _ in range(30))
    assert 0.7 < answers["yes"] / answers["no"] < 1.4


def test_questions_are_clean_sentences() -> None:
    rng = random.Random(2)
    for scene in SCENES:
        question, _ = scene_question(rng, scene)
        assert question.endswith("?")
        assert "  " not in question
        assert " ?" not in question
        assert question == question.lower()
        assert "{" not in question
