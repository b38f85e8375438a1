"""Random scenes: their counts, and degraded files."""

from __future__ import annotations

import numpy as np

from training.random_scenes import degrade, random_kinds, random_scene


def test_counts_cover_one_to_five() -> None:
    rng = np.random.default_rng(4)
    totals = [len(random_kinds(rng)) for _ in range(600)]
    assert set(totals) == {1, 2, 3, 4, 5}
    assert sum(total == 5 for total in totals) < 60


def test_degrading_keeps_size_and_mode() -> None:
    rng = np.random.default_rng(6)
    for _ in range(30):
        image, _ = random_scene(rng, (120, 80), ["dog"])
        assert (degrade(rng, image).size, degrade(rng, image).mode) == ((120, 80), "RGB")
