from __future__ import annotations

import io
import os
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from blip2cli.errors import ImageError, SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import open_sources
from blip2cli.sources.readers import stdin

Tree = Callable[..., Path]
Names = Callable[..., list[str]]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    return tmp_path / "here"


def test_lines(here: Path, names: Names) -> None:
    paths = b"a.png\nsub/b.png\r\n\n-c.png\n./d.png\nlast.png"
    assert names("-", stdin=paths) == ["a.png", "sub/b.png", "-c.png", "d.png", "last.png"]


def test_nul_separated_names_may_hold_anything(here: Path, names: Names) -> None:
    paths = b"two\nlines.png\0caf\xe9.png\0end\r\0\0"
    assert names("-", stdin=paths, nul=True) == ["two\nlines.png", "caf\udce9.png", "end\r"]


def test_absolute_paths_below_the_current_folder_get_the_same_names(
    here: Path, names: Names
) -> None:
    paths = f"{here}/a.png\na.png\n{here}/b.png\n".encode()
    assert names("-", stdin=paths) == ["a.png", "b.png"]  # the second is the first again


def test_paths_elsewhere_are_named_from_the_root(here: Path, names: Names) -> None:
    assert names("-", stdin=b"/data/x.png\n../y.png\n") == [
        "data/x.png",
        f"{here.parent}/y.png".lstrip("/"),
    ]


def test_two_images_never_share_a_name(here: Path) -> None:
    refs = list(open_sources(SourceOptions(("-",)), io.BytesIO(b"data/x.png\n/data/x.png\n")))
    assert [ref.file_name for ref in refs] == ["data/x.png", "/data/x.png"]
    with pytest.raises(ImageError, match="is taken by") as caught:
        refs[1].read()
    assert caught.value.error_type == "name_clash"


def test_a_missing_file_is_a_failed_image(here: Path) -> None:
    (ref,) = open_sources(SourceOptions(("-",)), io.BytesIO(b"absent.png\n"))
    with pytest.raises(ImageError) as caught:
        ref.read()
    assert caught.value.error_type == "missing"


@pytest.mark.parametrize("data", [b"", b"\n\n\r\n"])
def test_no_paths_at_all(here: Path, names: Names, data: bytes) -> None:
    with pytest.raises(SourceError, match="No paths came on stdin"):
        names("-", stdin=data)


def test_a_path_that_is_none_is_a_failed_image(here: Path) -> None:
    long = b"x" * (3 * stdin.MAX_PATH_BYTES)
    data = io.BytesIO(b"a.png\nb\0c.png\n" + long + b"\nd.png\n" + long)
    found = list(open_sources(SourceOptions(("-",)), data))
    names = ["a.png", "stdin/00000002", "stdin/00000003", "d.png", "stdin/00000005"]
    assert [ref.file_name for ref in found] == names
    for ref in found[1:3]:
        with pytest.raises(ImageError) as caught:
            ref.read()
        assert caught.value.error_type == "bad_row"


def test_what_is_no_list_of_paths(here: Path, names: Names) -> None:
    with pytest.raises(SourceError, match="add nul"):
        names("-", stdin=b"a.png\0b.png\0")
    with pytest.raises(SourceError, match="not an image"):
        names("-", stdin=b"\xff\xd8" * stdin.MAX_PATH_BYTES)
    with pytest.raises(SourceError, match="closed"):
        names("-")


def test_paths_are_taken_as_they_come(here: Path) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as stream, open(writing, "wb", buffering=0) as feed:
        refs = open_sources(SourceOptions(("-",)), stream)
        feed.write(b"first.png\nsecond.p")
        assert next(refs).file_name == "first.png"  # although the pipe stays open
        rest = threading.Timer(0.05, feed.write, [b"ng\n"])
        rest.start()
        assert next(refs).file_name == "second.png"
        rest.join()


def test_long_input_split_anywhere(here: Path, names: Names) -> None:
    expected = [f"folder/{i:05d}.png" for i in range(20_000)]  # several chunks
    assert names("-", stdin="\n".join(expected).encode()) == expected


def test_stdin_beside_a_folder(here: Path, names: Names) -> None:
    (here / "sub").mkdir()
    (here / "sub" / "a.png").touch()
    assert names("sub", "-", stdin=b"sub/a.png\nb.png\n") == ["sub/a.png", "b.png"]


def test_whether_a_path_comes(here: Path) -> None:
    reading, writing = os.pipe()
    with open(reading, "rb") as file, open(writing, "wb", buffering=0) as feed:
        stream = stdin.PathStream(file)
        refs = stdin.StdinSource("-", str(here), stream, nul=False).refs(str(here))
        assert stream.comes()  # nothing was read yet
        feed.write(b"a.png\n\nb.png\nc.p")
        first = next(refs)
        assert stream.comes()  # b.png was read with it
        next(refs)
        assert not stream.comes()
        held = stream.hold([first])
        assert stream.comes()
        assert [*held] == [first]
        assert not stream.comes()
        feed.write(b"ng\r\n\r\n")
        assert stream.comes()
        assert next(refs).file_name == "c.png"
        assert not stream.comes()  # an empty line is no path
        feed.close()
        assert stream.comes()  # the end
        assert [*refs] == []
