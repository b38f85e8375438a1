from __future__ import annotations

import pytest

from blip2cli.tiny.kinds import KINDS
from blip2cli.tiny.scenes import BACKGROUNDS, Placed, Scene
from training.build import GRID
from training.labels import UNKNOWN, patch_labels, scene_slots


def test_labels_say_what_stands_where() -> None:
    scene = Scene((Placed("cat", 0.25, 0.25, 0.3, 0.3), Placed("key", 0.8, 0.7, 0.2, 0.2)), "green")
    labels = patch_labels(scene)
    ways = labels.offset.reshape(GRID, GRID, 2)
    kinds, centers = labels.kind.reshape(GRID, GRID), labels.center.reshape(GRID, GRID)
    # From the patch in row 2, column 1 (its middle at 1.5, 2.5) to the cat at (2, 2).
    assert ways[2, 1] == pytest.approx([0.5, -0.5])
    assert kinds[2, 2] == KINDS.index("cat")
    assert kinds[5, 6] == KINDS.index("key")
    assert kinds[0, 7] == len(KINDS)
    assert centers.sum() == 2
    assert centers[2, 2] == centers[5, 6] == 1
    none = [len(KINDS)] * 3
    cat, key = KINDS.index("cat"), KINDS.index("key")
    green = BACKGROUNDS.index("green")
    assert scene_slots(scene) == [cat, key, *none, 1, 1, 0, 0, 0, green, UNKNOWN, 2]


def test_patches_know_how_many_of_their_kind_there_are_and_when_they_are_named() -> None:
    dog, cats = (
        Placed("dog", 0.2, 0.2, 0.2, 0.2),
        [Placed("cat", x, 0.7, 0.2, 0.2) for x in (0.3, 0.8)],
    )
    labels = patch_labels(Scene((dog, *cats), "green"))
    counts, named = labels.count.reshape(GRID, GRID), labels.group.reshape(GRID, GRID)
    assert (counts[1, 1], named[1, 1]) == (1, 1)  # two cats and a dog
    assert (counts[5, 2], named[5, 2]) == (counts[5, 6], named[5, 6]) == (2, 0)
    assert (counts[0, 7], named[0, 7]) == (UNKNOWN, UNKNOWN)
