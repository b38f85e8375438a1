"""Images of a list that come many together are those that come one by one."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from itertools import chain
from pathlib import Path
from unittest.mock import patch

from hypothesis import example, given
from hypothesis import strategies as st

from blip2cli.errors import SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import ImageRef, Listing, records
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
    with (
        tempfile.TemporaryDirectory() as folder,
        patch.object(records, "_BLOCK", size),
        patch.object(records, "MAX_LINE_BYTES", 80),
        patch.object(records, "MAX_NAME", 60),
    ):
        path = Path(folder, "list.txt")
        path.write_bytes(end.join(lines) + end * ended)
        options = SourceOptions((str(path),))
        assert outcome(lambda: together(Listing.open(options))) == outcome(
            lambda: list(Listing.open(options).refs())
        )


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


def test_a_list_that_names_folders_below_another(tmp_path: Path) -> None:
    os.makedirs(tmp_path / "x")
    for name in ("x/m.txt", "n.txt"):
        (tmp_path / name).write_text("a.png\nb/c.png\n")
    listing = Listing.open(SourceOptions((str(tmp_path / "x" / "m.txt"), str(tmp_path / "n.txt"))))
    blocks = chain.from_iterable(source.blocks(str(tmp_path)) or () for source in listing.sources)
    assert [key for block in blocks for key in block.keys] == [
        "x/a.png", "x/b/c.png", "a.png", "b/c.png",
    ]  # fmt: skip
