from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from blip2cli.storage import durable
from blip2cli.storage.durable import AtomicFile, AtomicFolder
from tests.sinks.helpers import listing


def test_the_order_of_the_steps(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noting_fsync(descriptor: int) -> None:
        path = os.readlink(f"/proc/self/fd/{descriptor}")
        steps.append("fsync " + ("folder" if os.path.isdir(path) else os.path.basename(path)))
        fsync(descriptor)

    def noting_replace(source: str, target: str) -> None:
        steps.append("rename")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noting_fsync)
    monkeypatch.setattr(os, "replace", noting_replace)
    durable.replace_file(str(tmp_path / "t"), str(tmp_path / "f"), b"new")
    assert steps == ["fsync t", "rename", "fsync folder"]
    assert (tmp_path / "f").read_bytes() == b"new"
    assert listing(tmp_path) == {"f"}


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_failure_keeps_the_old_content(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    (tmp_path / "f").write_bytes(b"old")

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, step, failing)
    with pytest.raises(OSError, match="Input/output"):
        durable.replace_file(str(tmp_path / "t"), str(tmp_path / "f"), b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert listing(tmp_path) == {"f"}


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    durable.replace_file(str(tmp_path / "t"), str(tmp_path / "f"), b"more than three bytes")
    assert (tmp_path / "f").read_bytes() == b"more than three bytes"


def test_file_systems_that_cannot_sync_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", refusing)
    code = errno.EINVAL
    durable.sync_folder(str(tmp_path))
    code = errno.EIO
    with pytest.raises(OSError, match="Input/output"):
        durable.sync_folder(str(tmp_path))


def test_removing(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).touch()
    durable.remove(str(tmp_path / "a"), str(tmp_path / "absent"), str(tmp_path / "b"))
    durable.remove()
    durable.remove_quietly(str(tmp_path / "absent"))
    assert listing(tmp_path) == set()


def atomic_file(folder: Path) -> AtomicFile:
    return AtomicFile(str(folder / ".f.tmp"), str(folder / "f"))


def atomic_folder(folder: Path) -> AtomicFolder:
    return AtomicFolder(*(str(folder / name) for name in (".d.tmp", "d", ".d.old")))


def test_a_file_appears_when_it_is_committed(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    new = atomic_file(tmp_path)
    new.file.write(b"new")
    new.sync()
    inode = new.inode
    assert (tmp_path / "f").read_bytes() == b"old"
    new.commit()
    assert (tmp_path / "f").read_bytes() == b"new"
    assert (tmp_path / "f").stat().st_ino == inode
    new.abort()
    assert listing(tmp_path) == {"f"}


def test_an_aborted_file_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"old")
    new = atomic_file(tmp_path)
    new.file.write(b"new")
    new.abort()
    assert (tmp_path / "f").read_bytes() == b"old"
    assert listing(tmp_path) == {"f"}


def test_a_folder_appears_when_it_is_committed(tmp_path: Path) -> None:
    for content in ("old", "new"):
        folder = atomic_folder(tmp_path)
        (Path(folder.path) / content).mkdir()
        (Path(folder.path) / content / "file").touch()
        folder.commit()
        folder.abort()
        assert listing(tmp_path) == {"d"}
        assert listing(tmp_path / "d") == {content}


def test_an_aborted_folder_leaves_the_old_one(tmp_path: Path) -> None:
    (tmp_path / "d").mkdir()
    atomic_folder(tmp_path).abort()
    assert listing(tmp_path) == {"d"}


def test_a_folder_that_cannot_be_put_in_place_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "old").touch()
    folder = atomic_folder(tmp_path)

    def failing(*_: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="Input/output"):
        folder.commit()
    folder.abort()
    assert listing(tmp_path) == {"d"}
    assert listing(tmp_path / "d") == {"old"}


def test_what_a_killed_process_left_is_cleared_and_the_old_folder_put_back(tmp_path: Path) -> None:
    for name in (".d.tmp", ".d.old"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "left").touch()
    atomic_folder(tmp_path).abort()
    assert listing(tmp_path) == {"d"}
    assert listing(tmp_path / "d") == {"left"}
