from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from blip2cli.storage import durable
from blip2cli.storage.atomic import AtomicFile, AtomicFolder
from tests.sinks.helpers import listing


def atomic_file(folder: Path) -> AtomicFile:
    return AtomicFile(str(folder / ".f.tmp"), str(folder / "f"))


def atomic_folder(folder: Path) -> AtomicFolder:
    return AtomicFolder(str(folder / "d"))


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
    for ending in ("tmp", "old"):
        left = Path(durable.temporary_name(str(tmp_path / "d"), ending))
        left.mkdir()
        (left / "left").touch()
    atomic_folder(tmp_path).abort()
    assert listing(tmp_path) == {"d"}
    assert listing(tmp_path / "d") == {"left"}


def test_a_file_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    new = atomic_file(tmp_path)
    new.file.write(b"new")
    (tmp_path / "f").write_bytes(b"of another program")
    with pytest.raises(FileExistsError):
        new.commit()
    new.abort()
    assert (tmp_path / "f").read_bytes() == b"of another program"
    assert listing(tmp_path) == {"f"}


def test_a_folder_that_appears_meanwhile_is_not_replaced(tmp_path: Path) -> None:
    new = atomic_folder(tmp_path)
    (Path(new.path) / "new").touch()
    (tmp_path / "d").mkdir()
    (tmp_path / "d" / "of another program").touch()
    with pytest.raises(OSError, match="not empty"):
        new.commit()
    new.abort()
    assert listing(tmp_path) == {"d"}
    assert listing(tmp_path / "d") == {"of another program"}
