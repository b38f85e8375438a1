from __future__ import annotations

import os
import tarfile
import tracemalloc
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blip2cli.errors import ImageError, SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import local_tree, open_sources
from blip2cli.sources.local_tree import Listing, LocalTree
from tests.images.pictures import picture

Tree = Callable[..., Path]
Names = Callable[..., list[str]]


def test_order_is_bytewise_by_component(tree: Tree, names: Names) -> None:
    root = tree("b/1.png", "a.png", "B.png", "a/z.jpg", "a/é.jpg", "a-b/c.webp", "a/a/a.tif")
    # "a" < "a-b" < "a.png" component by component, although "a-b/c" < "a/a" as plain text.
    assert names(root) == [
        "B.png",
        "a/a/a.tif",
        "a/z.jpg",
        "a/é.jpg",
        "a-b/c.webp",
        "a.png",
        "b/1.png",
    ]


def test_files_that_may_be_pictures_are_counted(tree: Tree) -> None:
    root = tree("a.png", "1.CR2", "2.cr2", "d/x", "d/y.psd", ".hidden", "notes.txt", "c.json")
    others: Counter[str] = Counter()
    options = SourceOptions((str(root), str(root / "d" / "x")))
    assert len(list(open_sources(options, None, others))) == 2
    assert others == {".cr2": 2, "": 1, ".psd": 1}
    (root / "a.png").unlink()
    with pytest.raises(
        SourceError, match=r"holds no images .*; it has 2 \.cr2, 1 without a suffix"
    ):
        open_sources(SourceOptions((str(root),)), None, Counter())


def test_hidden_files_other_suffixes_and_pipes_are_left_out(tree: Tree, names: Names) -> None:
    root = tree("ok.JPeG", ".hidden.png", ".git/x.png", "notes.txt", "png", "x.svg")
    os.mkfifo(root / "pipe.png")
    assert names(root) == ["ok.JPeG"]


def test_a_dangling_link_is_reported_not_lost(tree: Tree) -> None:
    root = tree("a.png")
    (root / "b.png").symlink_to("nowhere")
    refs = list(open_sources(SourceOptions((str(root),))))
    assert [ref.file_name for ref in refs] == ["a.png", "b.png"]
    with pytest.raises(ImageError) as caught:
        refs[1].read()
    assert caught.value.error_type == "missing"


def test_linked_folders_are_followed_once(tree: Tree, names: Names, tmp_path: Path) -> None:
    tree("photos/in/1.png", "outside/2.png", "outside/deep/3.png", "photos/.store/4.png")
    root = tmp_path / "photos"
    (root / "again").symlink_to("in")  # comes under its own name
    (root / "far").symlink_to(tmp_path / "outside")
    (root / "farther").symlink_to(tmp_path / "outside")  # entered through "far" already
    (root / "part").symlink_to(tmp_path / "outside" / "deep")  # the same
    (root / "stored").symlink_to(".store")  # hidden itself, so only the link leads there
    assert names(root) == ["far/2.png", "far/deep/3.png", "in/1.png", "stored/4.png"]


def test_loops_end(tree: Tree, names: Names) -> None:
    root = tree("photos/a/1.png", "beside.png") / "photos"
    (root / "a" / "up").symlink_to("..")
    (root / "parent").symlink_to("..")  # leads back to photos through its parent
    (root / "self").symlink_to("self")
    assert names(root) == ["a/1.png", "parent/beside.png"]


def test_a_linked_root_is_named_by_the_link(tree: Tree, names: Names, tmp_path: Path) -> None:
    tree("real/a/1.png")
    (tmp_path / "link").symlink_to("real")
    assert names(tmp_path / "link") == ["a/1.png"]


def test_listing_streams_folder_by_folder(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(*(f"{folder}/{n}.png" for folder in "abc" for n in range(3)))
    opened: list[bytes] = []
    real = os.scandir

    def scandir(path: bytes) -> object:
        opened.append(os.path.basename(path))
        return real(path)

    monkeypatch.setattr(local_tree.os, "scandir", scandir)
    found = LocalTree().images_below(str(root), str(root))
    for _ in range(3):
        next(found)
    assert opened[1:] == [b"a"]
    next(found)
    assert opened[1:] == [b"a", b"b"]


def test_a_folder_that_cannot_be_listed_is_a_failed_image(
    tree: Tree, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tree("a.png", "locked/b.png", "z.png")

    listing = LocalTree.listing

    def refusing(tree: LocalTree, folder: bytes, hidden: bool = False) -> Listing:
        if folder.endswith(b"locked"):
            raise PermissionError(13, "Permission denied")
        return listing(tree, folder, hidden)

    monkeypatch.setattr(LocalTree, "listing", refusing)
    options = SourceOptions((str(root),), include=("*.png",))
    refs = list(open_sources(options))
    assert [ref.file_name for ref in refs] == ["a.png", "locked", "z.png"]
    with pytest.raises(ImageError, match="cannot be listed") as caught:
        refs[1].read()
    assert caught.value.error_type == "permission_denied"


def test_a_very_deep_tree(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for _ in range(1500):  # deeper than Python's recursion limit; paths of 3,000 characters
        os.mkdir("d", dir_fd=descriptor)
        below = os.open("d", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = below
    os.close(os.open("x.png", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    (ref,) = open_sources(SourceOptions((str(tmp_path),)))
    assert ref.file_name.count("/") == 1500
    (ref,) = open_sources(SourceOptions((f"{tmp_path}/**/*.png",)))
    assert ref.file_name.count("/") == 1500
    os.unlink(ref.path)
    folder = os.path.dirname(ref.path)
    while folder != str(tmp_path):  # pytest's own clean-up would recurse
        os.rmdir(folder)
        folder = os.path.dirname(folder)


def test_an_empty_folder_says_what_was_looked_for(tree: Tree, names: Names) -> None:
    root = tree("notes.txt")
    with pytest.raises(SourceError, match=r"holds no images .*\.jpg.*\.png"):
        names(root)


@settings(max_examples=40, deadline=None)
@given(
    st.sets(
        st.binary(min_size=1, max_size=12).filter(
            lambda b: not set(b) & {0, 0x2F} and b[0] != 0x2E
        ),
        min_size=1,
        max_size=6,
    )
)
def test_any_name_is_found_and_can_be_read(
    tmp_path_factory: pytest.TempPathFactory, stems: set[bytes]
) -> None:
    root = tmp_path_factory.mktemp("names")
    for stem in stems:
        with open(os.fsencode(root) + b"/" + stem + b".png", "wb") as file:
            file.write(stem)
    refs = list(open_sources(SourceOptions((str(root),))))
    assert [os.fsencode(ref.file_name) for ref in refs] == sorted(s + b".png" for s in stems)
    assert [ref.read() + b".png" for ref in refs] == [os.fsencode(r.file_name) for r in refs]


def test_a_listing_keeps_order_and_kinds_across_blocks(tmp_path: Path) -> None:
    for name in ("a", "a-b", "a.png", "c"):
        (tmp_path / name).write_bytes(b"")
    (tmp_path / "b").mkdir()
    (tmp_path / "a\x01").mkdir()
    (tmp_path / "to-b").symlink_to("b")
    (tmp_path / "to-c").symlink_to("c")
    (tmp_path / "z").symlink_to("z")
    assert [entry[:3] for entry in LocalTree(block=2).listing(os.fsencode(tmp_path))] == [
        (b"a", False, False),
        (b"a\x01", True, False),
        (b"a-b", False, False),
        (b"a.png", False, False),
        (b"b", True, False),
        (b"c", False, False),
        (b"to-b", True, True),
        (b"to-c", False, True),
        (b"z", False, True),
    ]


def test_a_large_listing_takes_little_memory(tmp_path: Path) -> None:
    descriptor = os.open(tmp_path, os.O_RDONLY)
    for number in range(10_000):
        os.close(os.open(f"{number:08d}.png", os.O_CREAT | os.O_WRONLY, dir_fd=descriptor))
    os.close(descriptor)
    tracemalloc.start()
    try:
        entries = LocalTree().listing(os.fsencode(tmp_path))
        held, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(list(entries)) == 10_000
    assert held < 16 * 10_000  # 12 bytes of name each, and what joins them
    assert peak < 110 * 10_000


def test_a_folder_of_tables_or_archives_only(tmp_path: Path) -> None:
    inside = tmp_path / "set" / "data"
    inside.mkdir(parents=True)
    (inside.parent / "README.md").write_text("a data set")
    cells = [{"bytes": picture(number), "path": f"{number}.png"} for number in range(2)]
    for name in ("train-0", "train-1"):
        pq.write_table(pa.table({"image": cells, "alt": ["x", "y"]}), inside / f"{name}.parquet")
    options = SourceOptions((str(inside.parent),), keep=("alt",))
    found = [(ref.file_name, *ref.carried[:1]) for ref in open_sources(options)]
    assert found == [
        (f"data/train-{table}.parquet/{number}.png", alt)
        for table in (0, 1)
        for number, alt in enumerate(("x", "y"))
    ]
    cache = tmp_path / "cache"  # as the hub's, whose files are links
    cache.mkdir()
    for table in inside.iterdir():
        (cache / table.name).symlink_to(table)
    assert len(list(open_sources(SourceOptions((str(cache),))))) == 4
    with tarfile.open(inside / "0.tar", "w") as tar:
        tar.add(inside.parent / "README.md", "a.png")
    with pytest.raises(SourceError, match=r"of several kinds: \.parquet or \.tar; name those of"):
        open_sources(SourceOptions((str(inside.parent),)))
    (inside / "a.png").write_bytes(picture(1))
    (only,) = open_sources(SourceOptions((str(inside.parent),)))
    assert only.file_name == "data/a.png"
