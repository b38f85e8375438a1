"""Questions about a scene, in many wordings, each with its answer."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable

from blip2cli.tiny.kinds import ANIMALS, COLORS, KINDS, NUMBERS, object_list, plural, with_article
from blip2cli.tiny.scenes import Placed, Scene
from training.wordings import WHERE, WITHOUT_WHERE, WORDINGS

# Key of the wordings, the words for their blanks, the answer.
Facts = tuple[str, dict[str, str], str]
_APART = 0.06  # objects nearer than this (share of the width) have no clear left and right


def _some_kind(rng: random.Random, scene: Scene, absent_share: float) -> str:
    """A kind: one that the scene does not have with probability ``absent_share``."""
    if rng.random() >= absent_share:
        return rng.choice(scene.kinds)
    while (kind := rng.choice(KINDS)) in scene.kinds:
        pass
    return kind


def _yes_no(true: bool) -> str:
    return "yes" if true else "no"


def _count(rng: random.Random, scene: Scene) -> Facts:
    kind = _some_kind(rng, scene, 0.2)
    return "count", {"kinds": plural(kind)}, NUMBERS[Counter(scene.kinds)[kind]]


def _count_all(rng: random.Random, scene: Scene) -> Facts:
    return "count_all", {}, NUMBERS[len(scene.kinds)]


def _count_animals(rng: random.Random, scene: Scene) -> Facts:
    return "count_animals", {}, NUMBERS[sum(kind in ANIMALS for kind in scene.kinds)]


def _presence(rng: random.Random, scene: Scene) -> Facts:
    kind = _some_kind(rng, scene, 0.5)
    words = {"a": with_article(kind), "kinds": plural(kind)}
    return "presence", words, _yes_no(kind in scene.kinds)


def _background(rng: random.Random, scene: Scene) -> Facts:
    return "background", {}, scene.background


def _background_check(rng: random.Random, scene: Scene) -> Facts:
    color = scene.background if rng.random() < 0.5 else rng.choice(list(COLORS))
    return "background_check", {"color": color}, _yes_no(color == scene.background)


def _contents(rng: random.Random, scene: Scene) -> Facts:
    return "contents", {}, object_list(scene.kinds)


def _unique(scene: Scene) -> list[Placed]:
    """The objects that are the only ones of their kind."""
    counts = Counter(scene.kinds)
    return [placed for placed in scene.objects if counts[placed.kind] == 1]


def _pair(rng: random.Random, scene: Scene) -> tuple[str, str, bool] | None:
    """Two unique kinds, and whether the first is left of the second."""
    unique = _unique(scene)
    if len(unique) < 2:
        return None
    first, second = rng.sample(unique, 2)
    if abs(first.x - second.x) < _APART:
        return None
    return first.kind, second.kind, first.x < second.x


def _left_or_right(rng: random.Random, scene: Scene) -> Facts | None:
    pair = _pair(rng, scene)
    if pair is None:
        return None
    first, second, is_left = pair
    x, y = ("left", "right") if rng.random() < 0.7 else ("right", "left")
    words = {"first": first, "second": second, "x": x, "y": y}
    return "left_or_right", words, "left" if is_left else "right"


def _side_check(rng: random.Random, scene: Scene) -> Facts | None:
    pair = _pair(rng, scene)
    if pair is None:
        return None
    first, second, is_left = pair
    side = rng.choice(("left", "right"))
    words = {"first": first, "second": second, "side": side}
    return "side_check", words, _yes_no((side == "left") == is_left)


def _what_is_beside(rng: random.Random, scene: Scene) -> Facts | None:
    pair = _pair(rng, scene) if len(scene.objects) == 2 else None
    if pair is None:
        return None
    first, second, is_left = pair
    words = {"second": second, "side": "left" if is_left else "right"}
    return "what_is_beside", words, with_article(first)


def _which_side(rng: random.Random, scene: Scene) -> Facts | None:
    """Which half of the picture an object stands in; also which of two stands on a side."""
    candidates = [placed for placed in _unique(scene) if abs(placed.x - 0.5) > 0.1]
    if not candidates:
        return None
    placed = rng.choice(candidates)
    if len(scene.objects) == 2 and len(set(scene.kinds)) == 2 and rng.random() < 0.4:
        other = next(p for p in scene.objects if p.kind != placed.kind)
        if abs(other.x - placed.x) >= _APART:
            side = "left" if placed.x < other.x else "right"
            return "what_is_on_side", {"side": side}, with_article(placed.kind)
    return "which_side", {"kind": placed.kind}, "left" if placed.x < 0.5 else "right"


Maker = Callable[[random.Random, Scene], Facts | None]
_QUESTIONS: tuple[tuple[float, Maker], ...] = (
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


def _question(rng: random.Random, scene: Scene, maker: Maker) -> tuple[str, str] | None:
    """Question and answer; None: the scene does not have what it is about."""
    facts = maker(rng, scene)
    if facts is None:
        return None
    key, words, answer = facts
    wording, where = rng.choice(WORDINGS[key]), rng.choice(WHERE)
    if not where:
        wording = WITHOUT_WHERE.get(wording, wording)
    question = wording.format(where=where, **words)
    return " ".join(question.split()).replace(" ?", "?"), answer


def scene_question(rng: random.Random, scene: Scene, sides: bool = False) -> tuple[str, str]:
    """A random question about a scene and its answer, both in lower case.

    With ``sides`` those about left and right come five times as often.
    """
    makers = [maker for _, maker in _QUESTIONS]
    shares = [share * (5 if sides and maker in _SIDES else 1) for share, maker in _QUESTIONS]
    while True:
        made = _question(rng, scene, rng.choices(makers, shares)[0])
        if made is not None:
            return made


def side_question(rng: random.Random, scene: Scene) -> tuple[str, str] | None:
    """A random question about left and right, where the scene has what it is about."""
    return _question(rng, scene, rng.choice(_SIDES))


def side_questions(rng: random.Random, scene: Scene) -> list[tuple[str, str]]:
    """One question of either kind about two objects' left and right, where the scene has such."""
    found = [_question(rng, scene, maker) for maker in (_left_or_right, _side_check)]
    return [question for question in found if question]
