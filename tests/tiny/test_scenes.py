from __future__ import annotations

import numpy as np
import pytest

from blip2cli.tiny.backgrounds import draw_background
from blip2cli.tiny.kinds import COLORS
from blip2cli.tiny.scenes import draw_scene
from training.random_scenes import random_scene


def test_the_same_seed_draws_the_same_scene() -> None:
    first, second = (random_scene(np.random.default_rng(3)) for _ in range(2))
    assert first[1] == second[1]
    assert first[0].tobytes() == second[0].tobytes()


@pytest.mark.parametrize("size", [(64, 64), (640, 200), (90, 400)])
def test_objects_lie_inside_pictures_of_any_shape(size: tuple[int, int]) -> None:
    rng = np.random.default_rng(0)
    for _ in range(20):
        image, scene = random_scene(rng, size)
        assert image.size == size
        for placed in scene.objects:
            assert placed.width / 2 - 0.01 <= placed.x <= 1 - placed.width / 2 + 0.01
            assert placed.height / 2 - 0.01 <= placed.y <= 1 - placed.height / 2 + 0.01


def test_what_is_asked_for_is_drawn() -> None:
    rng = np.random.default_rng(1)
    image, scene = draw_scene(rng, (300, 200), ["cat", "key", "cat"], "teal")
    assert scene.caption == "two cats and a key on a teal background"
    empty = draw_background(np.random.default_rng(1), "teal", 200, 300)
    assert image.size == (300, 200)
    assert np.abs(np.asarray(image, np.float32) - empty).max() > 100  # something stands there


def test_objects_show_where_the_scene_says() -> None:
    rng = np.random.default_rng(5)
    for _ in range(20):
        image, scene = draw_scene(rng, (200, 200), ["ball"], "purple")
        pixels = np.asarray(image, np.float32)
        placed = scene.objects[0]
        x, y = int(placed.x * 200), int(placed.y * 200)
        white = pixels[max(0, y - 20) : y + 20, max(0, x - 20) : x + 20].min(axis=2).max()
        assert white > 180  # the football's white panels


@pytest.mark.parametrize("name", list(COLORS))
def test_backgrounds_stay_near_their_colour(name: str) -> None:
    rng = np.random.default_rng(2)
    owners = [color for color, shades in COLORS.items() for _ in shades]
    flat = np.concatenate([np.asarray(shades, np.float32) for shades in COLORS.values()])
    near = 0
    for _ in range(40):
        mean = draw_background(rng, name, 40, 60).mean((0, 1))
        near += owners[int(np.abs(flat - mean).sum(1).argmin())] == name
    assert near >= 34
