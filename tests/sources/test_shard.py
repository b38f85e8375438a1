"""Shares of the images of a source."""

from __future__ import annotations

import hashlib
import io
import os
import zipfile
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from blip2cli.errors import SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import Listing
from blip2cli.sources.shard import Shard, name_order, shard_of
from blip2cli.storage.hash_set import ORDINAL

Tree = Callable[..., Path]
NAMES = tuple(f"{folder}{number}.png" for folder in ("a/", "a-b/", "") for number in range(8))


def listed(*sources: object, stdin: bytes = b"", **options: object) -> list[tuple[str, int | None]]:
    """Names of images, and their places in the source where they carry them."""
    chosen = SourceOptions(tuple(map(str, sources)), **options)  # type: ignore[arg-type]
    listing = Listing.open(chosen, io.BytesIO(stdin))
    names = [column.name for column in listing.columns]
    place = names.index(ORDINAL) if ORDINAL in names else None
    return [
        (ref.file_name, None if place is None else ref.carried[place])  # type: ignore[misc]
        for ref in listing.refs()
    ]


def test_the_share_of_a_name_is_what_the_page_says() -> None:
    digest = hashlib.sha256("a/ü.png".encode()).hexdigest()
    assert shard_of("a/ü.png", 7) == int(digest[:16], 16) % 7 + 1
    # In every version: outputs of shares are gone on with.
    assert [shard_of(f"{n}.png", 8) for n in range(6)] == [3, 3, 1, 3, 8, 8]
    assert shard_of(os.fsdecode(b"caf\xe9.png"), 1000) == 617
    counts = Counter(shard_of(f"{n:06d}.jpg", 8) for n in range(8000))
    assert set(counts) == set(range(1, 9))
    assert min(counts.values()) > 900


@given(st.text(min_size=1), st.integers(1, 50))
def test_each_name_is_in_one_share(name: str, count: int) -> None:
    name = name.encode("utf-8", "ignore").decode()
    assert [Shard(i, count).takes(name) for i in range(1, count + 1)].count(True) == 1


@pytest.mark.parametrize("count", [1, 2, 3, 8])
@pytest.mark.parametrize("kind", ["folder", "glob", "manifest", "stdin", "zip", "several"])
def test_shares_are_all_images_once(
    tree: Tree, kind: str, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree(*(f"images/{name}" for name in NAMES))
    monkeypatch.chdir(root)
    by_hand = list(reversed(NAMES))
    (root / "list.txt").write_text("".join(f"images/{name}\n" for name in by_hand))
    with zipfile.ZipFile(root / "all.zip", "w") as archive:
        for name in by_hand:
            archive.writestr(name, b"")
    sources: dict[str, tuple[str, ...]] = {
        "folder": ("images",),
        "glob": ("images/**/*.png",),
        "manifest": ("list.txt",),
        "stdin": ("-",),
        "zip": ("all.zip",),
        "several": ("images/a-b", "images"),
    }
    given_in = (root / "list.txt").read_bytes()
    everything = [name for name, _ in listed(*sources[kind], stdin=given_in)]
    shares = [
        listed(*sources[kind], stdin=given_in, shard=f"{i}/{count}") for i in range(1, count + 1)
    ]
    for index, share in enumerate(shares, 1):
        assert all(shard_of(name, count) == index for name, _ in share)
    merged = [item for share in shares for item in share]
    if kind in ("folder", "glob"):  # names say where an image was
        merged.sort(key=lambda item: name_order(item[0]))
    else:
        merged.sort(key=lambda item: item[1] or 0)
        assert [place for _, place in merged] == list(range(1, len(everything) + 1))
    assert [name for name, _ in merged] == everything


def test_files_that_are_added_move_no_other(tree: Tree) -> None:
    root = tree("b.png", "c.png", "d.png")
    before = {name: i for i in (1, 2, 3) for name, _ in listed(root, shard=f"{i}/3")}
    tree("a.png", "cc.png")
    after = {name: i for i in (1, 2, 3) for name, _ in listed(root, shard=f"{i}/3")}
    assert before.items() < after.items()


def test_limit_include_and_exclude_are_of_the_whole_source(tree: Tree) -> None:
    """All shares together are what one process would label with the same options."""
    root = tree(*NAMES)
    options = {"limit": 7, "include": ("a/*", "a-b/*"), "exclude": ("a/3*",)}
    shares = [name for i in range(1, 6) for name, _ in listed(root, shard=f"{i}/5", **options)]
    assert sorted(shares, key=name_order) == [name for name, _ in listed(root, **options)]
    assert len(shares) == 7


def test_a_share_may_be_empty_and_a_source_may_not(tree: Tree) -> None:
    root = tree("a.png", "nothing/x")
    shares = [listed(root, shard=f"{i}/9") for i in range(1, 10)]
    assert sorted(map(len, shares)) == [0] * 8 + [1]
    for wrong, options in ((root / "nothing", {}), (root, {"include": ("b*",)})):
        with pytest.raises(SourceError):
            listed(wrong, shard="1/9", **options)


def test_rows_of_a_manifest_about_one_image_stay_together(tree: Tree) -> None:
    root = tree("a.png", "b.png", "c.png")
    manifest = root / "list.csv"
    manifest.write_text("file_name,note\na.png,1\nb.png,2\na.png,3\nc.png,4\nb.png,5\n")
    shares = [listed(manifest, keep=("note",), shard=f"{i}/2") for i in (1, 2)]
    for index, share in enumerate(shares, 1):
        assert all(shard_of(name, 2) == index for name, _ in share)
    merged = sorted((place, name) for share in shares for name, place in share)
    assert merged == [(1, "a.png"), (2, "b.png"), (3, "a.png"), (4, "c.png"), (5, "b.png")]
