"""Captions taken apart, and captions with one thing wrong."""

from __future__ import annotations

import random

import numpy as np
import pytest

from blip2cli.tiny.scenes import Scene
from training.claims import CHANGES, Claim, nearly_right
from training.random_scenes import random_scene


@pytest.fixture(scope="module")
def scenes() -> list[Scene]:
    rng = np.random.default_rng(3)
    return [random_scene(rng, size=(56, 56))[1] for _ in range(150)]


def test_a_true_claim_reads_as_the_caption(scenes: list[Scene]) -> None:
    for scene in scenes:
        claim = Claim.of(scene)
        assert claim.text == scene.caption
        groups = [group for _, group in claim.pieces if group is not None]
        assert all(claim.holds(claim, group) for group in groups)


def test_a_changed_claim_has_one_thing_wrong(scenes: list[Scene]) -> None:
    rng = random.Random(0)
    for scene in scenes:
        true = Claim.of(scene)
        for name, change in CHANGES.items():
            changed = change(rng, true)
            assert changed.text != true.text
            assert (changed.background != true.background) == (name == "another background")
            missing = [
                kind for kind in true.kinds if changed.kinds.count(kind) < true.kinds.count(kind)
            ]
            if name == "another background":
                assert changed.kinds == true.kinds
            elif len(changed.kinds) == len(true.kinds):
                assert set(changed.kinds) - set(true.kinds)  # a kind that is not there
                assert len(set(missing)) == 1
            else:
                assert name == "another count"
                assert abs(len(changed.kinds) - len(true.kinds)) == 1
                assert set(changed.kinds) == set(true.kinds)


def test_the_wrong_words_are_marked(scenes: list[Scene]) -> None:
    claim = Claim(("cat", "cat", "pizza"), "blue")
    changed = Claim(("cat", "dog", "pizza"), "blue")
    wrong = [
        piece
        for piece, group in changed.pieces
        if group is not None and not changed.holds(claim, group)
    ]
    assert wrong == ["a cat", " a dog"]
    assert "".join(piece for piece, _ in changed.pieces) == changed.text
    elsewhere = Claim(claim.kinds, "red")
    marked = [g for _, g in elsewhere.pieces if g is not None and not elsewhere.holds(claim, g)]
    assert marked == [("red", 0)]


def test_nearly_right_draws_every_change() -> None:
    rng = random.Random(1)
    true = Claim(("cat", "cat", "pizza"), "blue")
    drawn = [nearly_right(rng, true) for _ in range(200)]
    assert {changed.background != "blue" for changed in drawn} == {True, False}
    assert {len(changed.kinds) for changed in drawn} == {2, 3, 4}
    assert true not in drawn
