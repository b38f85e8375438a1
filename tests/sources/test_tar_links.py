from __future__ import annotations

import io
import tarfile
from pathlib import Path

import pytest

from tests.sources.helpers import failure, refs

LINKS = {
    "set/hard.png": ("photos/a.png", tarfile.LNKTYPE),
    "set/soft.png": ("../photos/b.png", tarfile.SYMTYPE),
    "set/forward.png": ("../z.png", tarfile.SYMTYPE),
    "set/twice.png": ("soft.png", tarfile.SYMTYPE),
    "album": ("photos", tarfile.SYMTYPE),
    "through.png": ("album/a.png", tarfile.SYMTYPE),
}
DEAD = {
    "gone.png": ("nowhere.png", tarfile.SYMTYPE),
    "outside.png": ("/etc/passwd", tarfile.SYMTYPE),
    "above.png": ("../../x.png", tarfile.SYMTYPE),
    "circle.png": ("circle.png", tarfile.SYMTYPE),
    "hard.png": ("nowhere.png", tarfile.LNKTYPE),
}


def write(path: Path, mode: str) -> Path:
    with tarfile.open(path, mode) as tar:  # type: ignore[call-overload]

        def file(name: str, data: bytes) -> None:
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))

        file("./photos/a.png", b"a" * 300_000)
        file("./photos/b.png", b"b")
        file("set/hard.json", b'{"id": 7}')
        for name, (target, kind) in (LINKS | DEAD).items():
            info = tarfile.TarInfo(name)
            info.linkname, info.type = target, kind
            tar.addfile(info)
        file("z.png", b"z")
    return path


@pytest.mark.parametrize(("name", "mode"), [("s.tar", "w"), ("s.tgz", "w:gz")])
def test_links_are_the_images_they_name(name: str, mode: str, tmp_path: Path) -> None:
    found = {ref.file_name: ref for ref in refs(write(tmp_path / name, mode))}
    images = {"photos/a.png", "photos/b.png", "z.png", *LINKS, *DEAD} - {"album"}
    assert found.keys() == images
    read = {name: found[name].read()[:1] for name in LINKS if name != "album"}
    assert read == {
        "set/hard.png": b"a", "set/soft.png": b"b", "set/forward.png": b"z",
        "set/twice.png": b"b", "through.png": b"a",
    }  # fmt: skip
    assert {failure(found[name]) for name in DEAD} == {"missing"}


def test_a_linked_image_has_the_fields_of_its_own_sample(tmp_path: Path) -> None:
    found = {ref.file_name: ref for ref in refs(write(tmp_path / "s.tar", "w"), keep=("id",))}
    assert found["set/hard.png"].carried == (7,)
    assert found["set/soft.png"].carried == (None,)


def test_a_file_that_is_stored_twice_is_no_circle(tmp_path: Path) -> None:
    """GNU tar stores the second ``f.jpg`` of ``tar cf x.tar f.jpg f.jpg g.jpg`` as a hard link to
    itself, and its other name as one to it."""
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        info = tarfile.TarInfo("f.jpg")
        info.size = 1
        tar.addfile(info, io.BytesIO(b"f"))
        for name in ("f.jpg", "g.jpg"):
            link = tarfile.TarInfo(name)
            link.linkname, link.type = "f.jpg", tarfile.LNKTYPE
            tar.addfile(link)
    found = list(refs(path))
    assert [ref.file_name for ref in found] == ["f.jpg", "f-00000001.jpg", "g.jpg"]
    assert [ref.read() for ref in found] == [b"f", b"f", b"f"]
