"""What an output remembers of its sources."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from blip2cli.options import SourceOptions
from blip2cli.sources import Listing
from blip2cli.sources.identity import place

Tree = Callable[..., Path]


def test_a_place_is_the_same_however_it_is_written(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree("a.png")
    monkeypatch.chdir(root.parent)
    assert place(root.name) == place(f"{root}/") == place(str(root)) != place(str(root.parent))
    signed = "s3://bucket/folder/a.tar?X-Amz-Signature={}"
    assert place(signed.format("1")) == place(signed.format("2"))
    assert str(root) not in place(str(root))


def test_folders_and_lists_have_no_state(tree: Tree) -> None:
    root = tree("a.png", "b.png")
    (root / "t.csv").write_text("path,sku\na.png,1\n")
    for source in (str(root), f"{root}/*.png", f"{root}/t.csv"):
        assert Listing.open(SourceOptions((source,))).identity()["content"] == {}


def test_a_manifest_that_has_grown_has_its_old_state(tree: Tree) -> None:
    root = tree("a.png", "b.png")
    manifest = root / "t.csv"
    manifest.write_text("path,sku\na.png,1\n")
    listing = Listing.open(SourceOptions((str(manifest),), keep=("sku",)))
    before = listing.identity()
    manifest.write_text("path,sku\na.png,1\nb.png,2\n")
    assert listing.identity(before) == before != listing.identity()
    manifest.write_text("path,sku\na.png,7\nb.png,2\n")
    assert listing.identity(before) != before
    manifest.write_text("path,sku\n")
    assert listing.identity(before) != before
    os.truncate(manifest, 0)
    assert listing.identity(before) != before
