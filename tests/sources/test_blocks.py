"""Images that are listed many together are those that come one by one."""

from __future__ import annotations

import os
import tempfile
from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import replace
from functools import partial
from itertools import chain
from pathlib import Path
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from blip2cli.errors import SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import ImageRef, Listing
from blip2cli.sources.base import FailedRef
from blip2cli.sources.local_tree import LocalTree
from blip2cli.sources.members import MAX_NAME
from blip2cli.sources.records import text_blocks, text_records
from blip2cli.sources.walk import Entry
from blip2cli.storage.hash_set import HashSet

_LINES = st.lists(
    st.one_of(
        st.sampled_from([b"a.png", b"b/c d.png", b"a.png", b"k\xc3\xa4fer.png"]),
        st.text("./~a\r\0\\ :", max_size=6).map(str.encode),
        st.sampled_from([b"", b"..", b"../x.png", b"/x.png", b"s3://b/x.png", b"caf\xe9.png"]),
        st.just(b"x" * 70),
    ),
    max_size=12,
)


def together(listing: Listing) -> list[ImageRef]:
    """The images of all blocks, each once."""
    seen = HashSet()
    return [
        block.ref(number)
        for block in listing.blocks()
        for number, key in enumerate(block.keys)
        if block.unique or seen.add(key)
    ]


def outcome(list_images: Callable[[], list[ImageRef]]) -> list[ImageRef] | str:
    """The images, or what the error says."""
    try:
        return list_images()
    except SourceError as error:
        return str(error)


@given(_LINES, st.sampled_from([b"\n", b"\r\n"]), st.booleans(), st.integers(1, 40))
@example([b"a.png", b"x" * 70, b"y.png", b"x" * 200], b"\n", True, 10)
def test_a_list_is_read_in_blocks(lines: list[bytes], end: bytes, ended: bool, size: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "list.txt")
        path.write_bytes(end.join(lines) + end * ended)
        try:
            listing = Listing.open(SourceOptions((str(path),)))
        except SourceError:
            return
        small = replace(
            listing.sources[0],
            records=partial(text_records, str(path), line_bytes=80),
            read_blocks=partial(text_blocks, line_bytes=80, block_bytes=size),
        )
        listing = replace(listing, sources=(small,))
        assert outcome(lambda: together(listing)) == outcome(lambda: list(listing.refs()))


def test_names_that_are_too_long_come_in_blocks(tmp_path: Path) -> None:
    names = ["a.png", "x" * MAX_NAME, "y" * (MAX_NAME + 1), "b.png"]
    (tmp_path / "m.txt").write_text("\n".join(names) + "\n")
    listing = Listing.open(SourceOptions((str(tmp_path / "m.txt"),)))
    found = together(listing)
    assert found == list(listing.refs())
    assert [isinstance(ref, FailedRef) for ref in found] == [False, False, True, False]


def test_what_options_choose_and_several_sources_come_in_blocks_too(tmp_path: Path) -> None:
    for name in ("a.png", "b.png", "c/d.png", "e.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "m.txt").write_text("e.png\na.png\ne.png\n")
    (tmp_path / "m.csv").write_text("path,n\ne.png,1\na.png,2\ne.png,3\n")
    folder, table = str(tmp_path), str(tmp_path / "m.csv")
    for options in (
        SourceOptions((folder,), limit=3),
        SourceOptions((folder,), exclude=("b*",)),
        SourceOptions((folder, str(tmp_path / "m.txt"))),
        SourceOptions((table,), keep=("n",)),
    ):
        assert together(Listing.open(options)) == list(Listing.open(options).refs())


def test_a_folder_comes_in_blocks(tmp_path: Path) -> None:
    for name in ("a.png", "b/c.PNG", "b/d.txt", "b/.png", "b.jpg", "e/f.raw", "g", "h..png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    os.symlink("nowhere", tmp_path / "x.png")
    os.symlink(tmp_path, tmp_path / "b" / "loop")
    others: list[Counter[str]] = [Counter(), Counter()]
    listing = Listing.open(SourceOptions((str(tmp_path),)))
    small = replace(listing, sources=(replace(listing.sources[0], tree=LocalTree(block=2)),))
    blocks = [*small.blocks(others[0])]
    assert len(blocks) == 3
    found = [block.ref(n) for block in blocks for n in range(len(block.keys))]
    assert found == list(listing.refs(others[1]))
    assert [ref.key for ref in found] == ["a.png", "b/c.PNG", "b.jpg", "h..png", "x.png"]
    assert others[0] == others[1]
    (tmp_path / "empty").mkdir()
    with pytest.raises(SourceError, match="holds no images"):
        Listing.open(SourceOptions((str(tmp_path / "empty"),))).blocks()


def test_folders_that_cannot_be_listed_come_in_blocks(tmp_path: Path) -> None:
    (tmp_path / "b").mkdir()
    (tmp_path / "a.png").touch()
    listing = Listing.open(SourceOptions((str(tmp_path),)))
    with patch.object(LocalTree, "listing", _denied):
        assert together(listing) == list(listing.refs())
        assert [ref.key for ref in together(listing)] == ["a.png", "b"]


def _denied(self: LocalTree, folder: bytes, hidden: bool = False) -> Iterable[Entry]:
    if folder.endswith(b"b"):
        raise PermissionError(13, "no")
    return [(b"a.png", False, False, None), (b"b", True, False, None)]


def test_a_list_that_names_folders_below_another(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "x")
    for name in ("x/m.txt", "n.txt"):
        (tmp_path / name).write_text("a.png\nb/c.png\n")
    listing = Listing.open(SourceOptions((str(tmp_path / "x" / "m.txt"), str(tmp_path / "n.txt"))))
    blocks = chain.from_iterable(source.blocks(str(tmp_path)) or () for source in listing.sources)
    assert [key for block in blocks for key in block.keys] == [
        "x/a.png", "x/b/c.png", "a.png", "b/c.png",
    ]  # fmt: skip
