"""Questions about a scene, in many wordings, each with its answer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from blip2cli.tiny.kinds import ANIMALS, COLORS, NUMBERS, object_list, plural, with_article
from blip2cli.tiny.scenes import Scene
from training.wordings import ask, some_kind

_APART = 0.06  # objects nearer than this (share of the width) have no clear left and right


def _count(rng: random.Random, scene: Scene) -> tuple[str, str]:
    kind = some_kind(rng, scene, 0.2)
    question = ask(
        rng,
        (
            "how many {kinds} are there {where}?",
            "how many {kinds} are there {where}?",
            "how many {kinds} are {where}?",
            "how many {kinds} do you see {where}?",
            "how many {kinds} can you see {where}?",
            "how many {kinds} does the image show?",
            "how many {kinds} does the picture show?",
            "how many {kinds} does the image contain?",
            "what is the number of {kinds} {where}?",
            "count the {kinds} {where}?",
        ),
        kinds=plural(kind),
    )
    if question.endswith(" are?"):
        question = question.replace(" are?", " are there?")
    return question, NUMBERS[Counter(scene.kinds)[kind]]


def _count_all(rng: random.Random, scene: Scene) -> tuple[str, str]:
    question = ask(
        rng,
        (
            "how many objects are there {where}?",
            "how many things are there {where}?",
            "how many objects are in the image?",
            "how many objects are in the picture?",
            "how many things are in the picture?",
            "how many objects do you see {where}?",
            "how many things can you see {where}?",
        ),
    )
    return question, NUMBERS[len(scene.kinds)]


def _count_animals(rng: random.Random, scene: Scene) -> tuple[str, str]:
    question = ask(
        rng, ("how many animals are there {where}?", "how many animals do you see {where}?")
    )
    return question, NUMBERS[sum(kind in ANIMALS for kind in scene.kinds)]


def _presence(rng: random.Random, scene: Scene) -> tuple[str, str]:
    kind = some_kind(rng, scene, 0.5)
    question = ask(
        rng,
        (
            "is there {a} {where}?",
            "is there {a} {where}?",
            "is {a} {where}?",
            "do you see {a} {where}?",
            "can you see {a} {where}?",
            "does the image contain {a}?",
            "does the picture contain {a}?",
            "does the image show {a}?",
            "does the picture show {a}?",
            "is {a} present {where}?",
            "are there any {kinds} {where}?",
            "are there {kinds} {where}?",
        ),
        a=with_article(kind),
        kinds=plural(kind),
    )
    if question == f"is {with_article(kind)}?":
        question = f"is there {with_article(kind)}?"
    return question, "yes" if kind in scene.kinds else "no"


def _background(rng: random.Random, scene: Scene) -> tuple[str, str]:
    question = ask(
        rng,
        (
            "what color is the background?",
            "what color is the background?",
            "what is the color of the background?",
            "what is the background color?",
            "which color is the background?",
            "what color does the background have?",
            "what colour is the background?",
            "what is the colour of the background?",
            "what color is the background of the image?",
            "what color is the background of the picture?",
        ),
    )
    return question, scene.background


def _background_check(rng: random.Random, scene: Scene) -> tuple[str, str]:
    color = scene.background if rng.random() < 0.5 else rng.choice(list(COLORS))
    question = ask(
        rng, ("is the background {color}?", "is the color of the background {color}?"), color=color
    )
    return question, "yes" if color == scene.background else "no"


def _contents(rng: random.Random, scene: Scene) -> tuple[str, str]:
    question = ask(
        rng,
        (
            "what is in the image?",
            "what is in the picture?",
            "what is there {where}?",
            "what is here?",
            "what is this?",
            "what do you see {where}?",
            "what can you see {where}?",
            "what does the image show?",
            "what does the picture show?",
            "what does the image contain?",
            "what objects are there {where}?",
            "what objects are in the image?",
            "what objects are in the picture?",
            "which objects are there {where}?",
            "what things are there {where}?",
            "what is shown {where}?",
        ),
    )
    return question, object_list(scene.kinds)


def _pair(rng: random.Random, scene: Scene) -> tuple[str, str, bool] | None:
    """Two kinds that stand there once each, and whether the first is left of the second."""
    counts = Counter(scene.kinds)
    single = [placed for placed in scene.objects if counts[placed.kind] == 1]
    if len(single) < 2:
        return None
    first, second = rng.sample(single, 2)
    if abs(first.x - second.x) < _APART:
        return None
    return first.kind, second.kind, first.x < second.x


def _left_or_right(rng: random.Random, scene: Scene) -> tuple[str, str] | None:
    pair = _pair(rng, scene)
    if pair is None:
        return None
    first, second, is_left = pair
    sides = ("left", "right") if rng.random() < 0.7 else ("right", "left")
    question = ask(
        rng,
        (
            "is the {first} to the {x} or to the {y} of the {second}?",
            "is the {first} to the {x} or {y} of the {second}?",
            "is the {first} {x} or {y} of the {second}?",
            "is the {first} on the {x} or the {y} of the {second}?",
            "is the {first} on the {x} or on the {y} of the {second}?",
            "is the {first} on the {x} or {y} of the {second}?",
            "on which side of the {second} is the {first}?",
            "which side of the {second} is the {first} on?",
            "where is the {first} relative to the {second}, {x} or {y}?",
        ),
        first=first,
        second=second,
        x=sides[0],
        y=sides[1],
    )
    return question, "left" if is_left else "right"


def _side_check(rng: random.Random, scene: Scene) -> tuple[str, str] | None:
    pair = _pair(rng, scene)
    if pair is None:
        return None
    first, second, is_left = pair
    side = rng.choice(("left", "right"))
    question = ask(
        rng,
        (
            "is the {first} to the {side} of the {second}?",
            "is the {first} to the {side} of the {second}?",
            "is the {first} {side} of the {second}?",
            "is the {first} on the {side} of the {second}?",
            "is the {first} on the {side} side of the {second}?",
        ),
        first=first,
        second=second,
        side=side,
    )
    return question, "yes" if (side == "left") == is_left else "no"


def _what_is_beside(rng: random.Random, scene: Scene) -> tuple[str, str] | None:
    pair = _pair(rng, scene) if len(scene.objects) == 2 else None
    if pair is None:
        return None
    first, second, is_left = pair
    question = ask(
        rng,
        (
            "what is to the {side} of the {second}?",
            "what is {side} of the {second}?",
            "what is on the {side} of the {second}?",
        ),
        second=second,
        side="left" if is_left else "right",
    )
    return question, with_article(first)


def _which_side(rng: random.Random, scene: Scene) -> tuple[str, str] | None:
    """Which half of the picture an object stands in; also which of two stands on a side."""
    counts = Counter(scene.kinds)
    single = [p for p in scene.objects if counts[p.kind] == 1 and abs(p.x - 0.5) > 0.1]
    if not single:
        return None
    placed = rng.choice(single)
    side = "left" if placed.x < 0.5 else "right"
    if len(scene.objects) == 2 and len(counts) == 2 and rng.random() < 0.4:
        other = next(p for p in scene.objects if p.kind != placed.kind)
        if abs(other.x - placed.x) >= _APART:
            side = "left" if placed.x < other.x else "right"
            wordings = (
                "what is on the {side}?",
                "what is on the {side} side?",
                "which object is on the {side}?",
            )
            return ask(rng, wordings, side=side), with_article(placed.kind)
    question = ask(
        rng,
        (
            "is the {kind} on the left or on the right?",
            "is the {kind} on the left or the right?",
            "is the {kind} on the left or right?",
            "is the {kind} on the left or on the right side?",
            "on which side is the {kind}?",
            "which side is the {kind} on?",
        ),
        kind=placed.kind,
    )
    return question, side


_QUESTIONS: tuple[tuple[float, Callable[[random.Random, Scene], tuple[str, str] | None]], ...] = (
    (0.26, _count),
    (0.05, _count_all),
    (0.03, _count_animals),
    (0.22, _presence),
    (0.10, _background),
    (0.04, _background_check),
    (0.06, _contents),
    (0.10, _left_or_right),
    (0.07, _side_check),
    (0.03, _what_is_beside),
    (0.04, _which_side),
)


_SIDES = (_left_or_right, _side_check, _what_is_beside, _which_side)


def scene_question(rng: random.Random, scene: Scene, sides: bool = False) -> tuple[str, str]:
    """A random question about a scene and its answer, both in lower case.

    With ``sides`` those about left and right come five times as often.
    """
    makers = [maker for _, maker in _QUESTIONS]
    shares = [share * (5 if sides and maker in _SIDES else 1) for share, maker in _QUESTIONS]
    while True:
        made = rng.choices(makers, shares)[0](rng, scene)
        if made is not None:
            return made


def side_question(rng: random.Random, scene: Scene) -> tuple[str, str] | None:
    """A random question about left and right, where the scene has what it asks for."""
    return rng.choice(_SIDES)(rng, scene)


def side_questions(rng: random.Random, scene: Scene) -> list[tuple[str, str]]:
    """One question of either kind about two objects' left and right, where the scene has such."""
    return [found for ask in (_left_or_right, _side_check) if (found := ask(rng, scene))]
