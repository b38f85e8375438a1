from __future__ import annotations

import pytest

from blip2cli.tiny.kinds import EMOJI, KINDS, caption, counted, groups, object_list, plural
from blip2cli.tiny.sprites import sprites


@pytest.mark.parametrize(
    ("kinds", "background", "expected"),
    [
        (["cat"], "blue", "a cat on a blue background"),
        (["cat"], "orange", "a cat on an orange background"),
        (["pizza", "cat", "cat"], "blue", "two cats and a pizza on a blue background"),
        (
            ["apple", "pizza", "cat", "cat"],
            "blue",
            "two cats, an apple and a pizza on a blue background",
        ),
        (["fish", "fish", "fish"], "red", "three fish on a red background"),
        (["bus", "bus", "butterfly"], "teal", "two buses and a butterfly on a teal background"),
        (["umbrella", "elephant"], "pink", "an elephant and an umbrella on a pink background"),
    ],
)
def test_caption_follows_the_grammar(kinds: list[str], background: str, expected: str) -> None:
    assert caption(kinds, background) == expected


def test_groups_are_ordered_by_count_and_then_by_kind() -> None:
    assert groups(["cup", "cat", "cup", "dog"]) == [("cup", 2), ("cat", 1), ("dog", 1)]


def test_plurals() -> None:
    expected = {"cat": "cats", "butterfly": "butterflies", "bus": "buses", "cactus": "cactuses"}
    assert {kind: plural(kind) for kind in expected} == expected
    assert counted("strawberry", 4) == "four strawberries"
    assert object_list(["key"]) == "a key"


def test_every_kind_has_a_picture() -> None:
    cut_outs = sprites()
    assert list(cut_outs) == list(KINDS) == list(EMOJI)
    assert all(max(image.size) > 90 and image.mode == "RGBA" for image in cut_outs.values())
    # No two kinds share a picture.
    assert len({image.tobytes() for image in cut_outs.values()}) == len(KINDS)
