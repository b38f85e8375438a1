from __future__ import annotations

import io
import os
import pickle
import resource
import stat
import zipfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from blip2cli.errors import ImageError, OptionError, SourceError
from blip2cli.options import SourceOptions
from blip2cli.sources import open_sources
from blip2cli.sources.base import ImageRef
from tests.sources.helpers import failure, refs


def write(file: Path, members: dict[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> Path:
    with zipfile.ZipFile(file, "w", method) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file


def names(found: list[ImageRef]) -> list[str]:
    return [ref.file_name for ref in found]


METHODS = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA)


@pytest.mark.parametrize("method", METHODS)
def test_images_in_the_order_of_their_names(method: int, tmp_path: Path) -> None:
    members = {"b.png": b"2", "é.png": b"4", "a/x.JPG": b"1", "notes.txt": b"", "c/": b"", "c": b""}
    found = refs(write(tmp_path / "a.zip", members | {"b/x.png": b"3"}, method))
    assert names(found) == ["a/x.JPG", "b.png", "b/x.png", "é.png"]
    travelled = [pickle.loads(pickle.dumps(ref)) for ref in reversed(found)]
    assert [ref.read() for ref in travelled] == [b"4", b"3", b"2", b"1"]


def test_several_archives(tmp_path: Path) -> None:
    for name in ("1.zip", "2.zip"):
        write(tmp_path / name, {"a.png": name.encode()})
    found = refs(f"{tmp_path}/*.zip")
    assert names(found) == ["1.zip/a.png", "2.zip/a.png"]
    assert [ref.read() for ref in found] == [b"1.zip", b"2.zip"]


def test_files_of_macos_are_left_out(tmp_path: Path) -> None:
    members = {"__MACOSX/._a.png": b"", ".b.png": b"", ".c/d.png": b"", "e.png": b"fine"}
    assert names(refs(write(tmp_path / "a.zip", members))) == ["e.png"]


def test_links_are_the_images_they_name(tmp_path: Path) -> None:
    file = write(tmp_path / "a.zip", {"d/e.png": b"fine", "f.png": b"other"})
    with zipfile.ZipFile(file, "a") as archive:
        for name, target in {
            "gone.png": "/etc/passwd", "link.png": "d/e.png", "d/up.png": "../f.png",
            "folder": "d", "through.png": "folder/up.png", "circle.png": "circle.png",
        }.items():  # fmt: skip
            link = zipfile.ZipInfo(name)
            link.external_attr = (stat.S_IFLNK | 0o777) << 16
            archive.writestr(link, target)
    found = {ref.file_name: ref for ref in refs(file)}
    assert {failure(found.pop(name)) for name in ("gone.png", "circle.png")} == {"missing"}
    assert {name: ref.read() for name, ref in found.items()} == {
        "d/e.png": b"fine", "f.png": b"other", "link.png": b"fine",
        "d/up.png": b"other", "through.png": b"other",
    }  # fmt: skip


def test_backslashes_of_windows_are_slashes(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name, system in (("d\\a.png", 0), ("d\\b.png", 3)):
            info = zipfile.ZipInfo(name)
            info.create_system = system
            archive.writestr(info, b"")
    assert names(refs(tmp_path / "a.zip")) == ["d/a.png", "d\\b.png"]


def test_what_lies_about_its_size_is_unpacked_in_pieces(tmp_path: Path) -> None:
    size = 200 << 20
    file = tmp_path / "a.zip"
    packed = zipfile.ZipFile(file, "w", zipfile.ZIP_BZIP2)
    with packed as archive, archive.open("a.png", "w") as member:
        for _ in range(200):
            member.write(bytes(1 << 20))
    real, claimed = size.to_bytes(4, "little"), (100).to_bytes(4, "little")
    file.write_bytes(file.read_bytes().replace(real, claimed))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert failure(refs(file)[0]) == "read_error"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss < before + 150_000


def test_a_directory_that_would_fill_the_memory_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "a.zip", {"a.png": b""})
    data = bytearray(file.read_bytes())
    data[-10:-6] = (1 << 30).to_bytes(4, "little")
    file.write_bytes(data)
    with pytest.raises(SourceError, match="over 128 MiB"):
        refs(file)


def test_names_are_made_unique_and_safe(tmp_path: Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("a.png", "a.png")
        with pytest.warns(UserWarning, match="Duplicate name"):
            archive.writestr("a.png", "a.png")
        for name in ("../../etc/a.png", "/etc/a.png"):
            archive.writestr(name, name)
    found = refs(tmp_path / "a.zip")
    assert names(found) == ["etc/a.png", "etc/a-00000003.png", "a.png", "a-00000001.png"]
    expected = [b"../../etc/a.png", b"/etc/a.png", b"a.png", b"a.png"]
    assert [ref.read() for ref in found] == expected


def test_names_in_utf8_without_its_flag(tmp_path: Path) -> None:
    file = write(tmp_path / "a.zip", {"caf__.png": b"", "caf_.png": b""})
    data = file.read_bytes().replace(b"caf__", "café".encode()).replace(b"caf_", b"caf\x82")
    file.write_bytes(data)
    assert names(refs(file)) == ["café.png", "café-00000001.png"]  # 0x82 is é in code page 437


def test_encrypted_members_fail_by_themselves(tmp_path: Path) -> None:
    file = write(tmp_path / "a.zip", {"a.png": b"secret", "b.png": b"open"})
    data = bytearray(file.read_bytes())
    data[6] |= 1  # the flags of the first local header
    data[data.index(b"PK\1\2") + 8] |= 1  # and in the directory
    file.write_bytes(data)
    locked, fine = refs(file)
    assert failure(locked) == "encrypted"
    assert fine.read() == b"open"


def test_a_bomb_is_not_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a.zip", {"a.png": bytes(1 << 24), "b.png": bytes(1000)})

    def unpack(*_: object, **__: object) -> None:
        raise AssertionError("it was unpacked")

    large, fine = refs(file)
    assert fine.read(most=1000) == bytes(1000)
    monkeypatch.setattr(zipfile.ZipFile, "open", unpack)
    assert failure(large, most=1000) == "too_large"


def test_a_member_that_lies_about_its_size(tmp_path: Path) -> None:
    file = write(tmp_path / "a.zip", {"a.png": bytes(1 << 24), "b.png": b"fine"})
    data = file.read_bytes()
    real, claimed = (1 << 24).to_bytes(4, "little"), (100).to_bytes(4, "little")
    assert data.count(real) == 2
    file.write_bytes(data.replace(real, claimed))
    liar, fine = refs(file)
    assert failure(liar) == "read_error"
    assert fine.read() == b"fine"


def test_damage_fails_the_member_it_hits(tmp_path: Path) -> None:
    file = write(tmp_path / "a.zip", {"a.png": os.urandom(500), "b.png": b"fine"})
    data = bytearray(file.read_bytes())
    data[200] ^= 0xFF
    file.write_bytes(data)
    hit, fine = refs(file)
    assert failure(hit) == "read_error"
    assert fine.read() == b"fine"


@pytest.mark.parametrize("data", [b"", b"no zip", b"PK\3\4" + bytes(50)])
def test_what_is_no_zip(data: bytes, tmp_path: Path) -> None:
    (tmp_path / "a.zip").write_bytes(data)
    with pytest.raises(SourceError, match="is no zip archive"):
        open_sources(SourceOptions((str(tmp_path / "a.zip"),)))


def test_an_archive_without_images_or_columns(tmp_path: Path) -> None:
    file = write(tmp_path / "a.zip", {"a.txt": b""})
    with pytest.raises(SourceError, match="holds no images"):
        refs(file)
    with pytest.raises(OptionError, match="has no columns"):
        refs(file, keep=("x",))


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_any_damage_is_an_error_of_ours(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a.png", b"one" * 20)
        archive.writestr("é/b.png", b"two" * 20)
    packed = bytearray(buffer.getvalue())
    for _ in range(data.draw(st.integers(1, 4))):
        packed[data.draw(st.integers(0, len(packed) - 1))] = data.draw(st.integers(0, 255))
    file = tmp_path_factory.mktemp("damaged") / "a.zip"
    file.write_bytes(packed)
    try:
        found = refs(file)
    except SourceError:
        return
    for ref in found:
        try:
            ref.read()
        except ImageError as error:
            assert "\n" not in str(error)  # noqa: PT017 - either outcome is right
