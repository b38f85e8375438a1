from __future__ import annotations

import io
import os
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest

from blip2cli.errors import SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import open_sources
from blip2cli.sources.base import FailedRef

Tree = Callable[..., Path]
Names = Callable[..., list[str]]


def test_a_single_file_whatever_its_suffix(tree: Tree, names: Names) -> None:
    assert names(tree("a/photo.dat") / "a/photo.dat") == ["photo.dat"]


def test_names_that_begin_with_a_dash_or_are_not_utf8(
    tree: Tree, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree("-a.png", os.fsdecode(b"caf\xe9.png"))
    monkeypatch.chdir(root)
    assert names("-a.png") == ["-a.png"]
    assert names(root) == ["-a.png", "caf\udce9.png"]


def test_several_sources_are_named_below_their_common_parent(tree: Tree, names: Names) -> None:
    root = tree("p/a/1.png", "p/b/1.png", "p/b/c/2.png", "q/1.png")
    assert names(root / "p/a", root / "p/b") == ["a/1.png", "b/1.png", "b/c/2.png"]
    assert names(root / "q/1.png", root / "p/a/1.png") == ["q/1.png", "p/a/1.png"]
    assert names(root / "p/a/1.png", root / "p/b/*.png") == ["a/1.png", "b/1.png"]


def test_an_image_given_twice_is_run_once(tree: Tree, names: Names) -> None:
    root = tree("p/a/1.png", "p/b.png")
    everything = ["a/1.png", "b.png"]
    assert names(root / "p", root / "p") == everything
    assert names(root / "p", f"{root}/p/") == everything
    assert names(root / "p", root / "p/b.png", f"{root}/p/a/*") == everything
    assert names(root / "p/b.png", root / "p") == ["b.png", "a/1.png"]


def test_folders_beside_one_another_are_not_remembered(tree: Tree) -> None:
    # Names are remembered only where sources may overlap; here memory must stay flat.
    root = tree("ab/1.png", "a/1.png", "a.b/1.png")
    sources = tuple(str(root / name) for name in ("a", "ab", "a.b"))
    refs = open_sources(SourceOptions(sources))
    assert [ref.file_name for ref in refs] == ["a/1.png", "ab/1.png", "a.b/1.png"]


def test_mistakes_are_found_before_the_first_image(tree: Tree) -> None:
    root = tree("a.png", "empty/notes.txt")
    good = str(root / "a.png")
    for sources, message in (
        ((good, str(root / "absent")), "There is no file or folder"),
        ((good, str(root / "*.gif")), "No image matches"),
        ((str(root / "empty"),), "holds no images"),
        ((good, ""), "empty source"),
        ((), "No source"),
    ):
        with pytest.raises(SourceError, match=message):
            open_sources(SourceOptions(sources))  # not iterated


def test_an_empty_folder_beside_a_full_one_is_fine(tree: Tree, names: Names) -> None:
    root = tree("a/1.png", "b/notes.txt")
    assert names(root / "b", root / "a") == ["a/1.png"]


def test_include_and_exclude(tree: Tree, names: Names) -> None:
    root = tree("a.png", "b.jpg", "thumbs/a.png", "x/thumbs/b.png", "x/y/c.png")
    assert names(root, include=("*.jpg", "y/*.png")) == ["b.jpg"]
    assert names(root, include=("**/y/*.png",)) == ["x/y/c.png"]
    assert names(root, include=("*.png",), exclude=("thumbs/",)) == [
        "a.png",
        "x/thumbs/b.png",
        "x/y/c.png",
    ]
    assert names(root, exclude=("**/thumbs/**", "/b.jpg")) == ["a.png", "x/y/c.png"]
    assert names(root, exclude=("[ab].*",)) == ["x/y/c.png"]


def test_a_selection_that_leaves_nothing(tree: Tree, names: Names) -> None:
    root = tree("a.png", "b.png")
    with pytest.raises(SourceError, match=r"include '\*.gif' does not leave any of the 2 images"):
        names(root, include=("*.gif",))
    with pytest.raises(SourceError, match=r"exclude '\*' does not leave the only image"):
        names(root / "a.png", exclude=("*",))


def test_limit(tree: Tree, names: Names) -> None:
    root = tree("a.png", "b.png", "c.jpg", "d.png")
    assert names(root, limit=2) == ["a.png", "b.png"]
    assert names(root, limit=9) == ["a.png", "b.png", "c.jpg", "d.png"]
    assert names(root, limit=1, include=("*.jpg",)) == ["c.jpg"]


def test_limit_reads_no_more_of_stdin_than_it_needs(tree: Tree) -> None:
    class Once(io.BytesIO):
        reads = 0

        def read1(self, size: int | None = -1) -> bytes:
            self.reads += 1
            assert self.reads == 1
            return super().read1(size)

    stream = Once(b"a.png\nb.png\nc.png\n")
    refs = open_sources(SourceOptions(("-",), limit=2), stream)
    assert [ref.file_name for ref in refs] == ["a.png", "b.png"]


def test_what_vanishes_of_several_sources_is_one_failure(tmp_path: Path) -> None:
    for name in ("1.tar", "2.tar", "3.tar"):
        with tarfile.open(tmp_path / name, "w") as tar:
            for member in ("a.png", "a.txt"):
                tar.addfile(tarfile.TarInfo(member))
    sources = tuple(str(tmp_path / f"{number}.tar") for number in (1, 2, 3))
    for given, keep in ((sources, ()), (sources, ("txt",)), ((f"{tmp_path}/*.tar",), ())):
        images = open_sources(SourceOptions(given, keep=keep))
        (tmp_path / "2.tar").rename(tmp_path / "away")
        found = [(ref.file_name, isinstance(ref, FailedRef)) for ref in images]
        (tmp_path / "away").rename(tmp_path / "2.tar")
        if given == sources:
            assert found == [("1.tar/a.png", False), ("2.tar", True), ("3.tar/a.png", False)]
        else:
            assert [name for name, _ in found] == ["1.tar/a.png", "2.tar", "3.tar/a.png"]
