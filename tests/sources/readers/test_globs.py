from __future__ import annotations

import glob
import itertools
from collections.abc import Callable
from pathlib import Path

import pytest

from blip2cli.errors import SourceError

Tree = Callable[..., Path]
Names = Callable[..., list[str]]

FILES = (
    "a.png",
    "b.jpg",
    "x/a.png",
    "x/y/a.png",
    "x/y/b.png",
    "x/y/z/a.png",
    "y/a.jpg",
    ".h/a.png",
    "x/.h.png",
)


PATTERNS = (
    "*.png  **/*.png  x/**/a.png  **/y/*.png  **/x/**/*.png  */*.png  ?/y/[ab].png  **/**/a.png "
    "x/.*.png  [!x]/*.jpg  */y/**/*.png  x/**/y/**/*.png"
)


@pytest.mark.parametrize("pattern", PATTERNS.split())
def test_matches_what_the_standard_library_matches(tree: Tree, names: Names, pattern: str) -> None:
    root = tree(*FILES)
    expected = set(glob.glob(f"{root}/{pattern}", recursive=True))
    head = pattern.split("*")[0].split("?")[0].split("[")[0].rpartition("/")[0]
    base = root / head if head else root
    found = names(f"{root}/{pattern}")
    assert {f"{base}/{name}" for name in found} == expected
    assert len(found) == len(set(found))
    assert found == sorted(found, key=lambda name: name.encode().split(b"/"))


def test_names_start_at_the_part_without_wildcards(tree: Tree, names: Names) -> None:
    assert names(f"{tree(*FILES)}/x/y/*.png") == ["a.png", "b.png"]


def test_relative_patterns_start_at_the_current_folder(
    tree: Tree, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tree(*FILES))
    assert names("*.jpg") == ["b.jpg"]
    assert names("./x/*/a.png") == ["y/a.png"]


def test_matching_folders_are_searched(tree: Tree, names: Names) -> None:
    root = tree("2024-01/a.png", "2024-02/deep/b.png", "2025-01/c.png", "2024.txt")
    assert names(f"{root}/2024*") == ["2024-01/a.png", "2024-02/deep/b.png"]


def test_a_pattern_that_names_a_suffix_takes_it(tree: Tree, names: Names) -> None:
    root = tree("a.dat", "b.dat", "c.png", "notes.txt")
    assert names(f"{root}/*.dat") == ["a.dat", "b.dat"]
    assert names(f"{root}/*") == ["c.png"]


def test_links_end_where_they_should(tree: Tree, names: Names) -> None:
    root = tree("x/a.png")
    (root / "x" / "loop").symlink_to("..")
    assert names(f"{root}/**/*.png") == ["x/a.png"]
    assert names(f"{root}/x/l*/x/*.png") == ["loop/x/a.png"]


def test_wildcards_in_a_real_name_are_no_pattern(tree: Tree, names: Names) -> None:
    root = tree("cat[1].png", "cat1.png", "dir*/a.png", "dirx/b.png")
    assert names(root / "cat[1].png") == ["cat[1].png"]
    assert names(root / "dir*") == ["a.png"]


@pytest.mark.parametrize("pattern", ["*.tiff", "x/*/nothing/*.png", "[.png", "[z-a]*"])
def test_no_match_is_the_users_mistake(tree: Tree, names: Names, pattern: str) -> None:
    root = tree(*FILES)
    with pytest.raises(SourceError, match="No image matches the pattern"):
        names(f"{root}/{pattern}")
    with pytest.raises(SourceError, match="No image matches the pattern"):
        names(root / "a.png", f"{root}/{pattern}")  # also beside a good source


def test_a_pattern_in_a_missing_folder(tree: Tree, names: Names) -> None:
    with pytest.raises(SourceError, match="not a folder"):
        names(f"{tree()}/absent/*.png")
    with pytest.raises(SourceError, match=r"'\.\.' after a wildcard"):
        names(f"{tree()}/*/../x.png")


def test_classes_and_single_characters(tree: Tree, names: Names) -> None:
    root = tree(*("".join(p) + ".png" for p in itertools.product("a]-!^b", repeat=2)))
    for pattern in ("[]a]?.png", "[!]a]?.png", "[a-b][!a-b].png", "?[]-].png", "[^a][b].png"):
        translated = pattern.replace("[^", "[!")
        expected = {Path(p).name for p in glob.glob(f"{root}/{translated}")}
        assert set(names(f"{root}/{pattern}")) == expected, pattern
