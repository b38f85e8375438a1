from __future__ import annotations

import os
from pathlib import Path

import pytest

from blip2cli.errors import RunError
from blip2cli.sinks.appended_file import AppendedFile
from blip2cli.storage import durable
from tests.sinks.helpers import listing


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    (tmp_path / "runs").mkdir()
    return tmp_path / "runs"


@pytest.fixture
def file(folder: Path) -> AppendedFile:
    file = AppendedFile(str(folder / "a"), durable.create(str(folder / "a"), append=True))
    file.append(b"one\n")
    return file


def refused(file: AppendedFile) -> str:
    with pytest.raises(RunError) as caught:
        file.append(b"two\n")
    file.close()
    return str(caught.value)


def test_lines_are_added_at_the_end(file: AppendedFile, folder: Path) -> None:
    file.append(b"two\n")
    file.sync()
    file.close()
    assert (folder / "a").read_bytes() == b"one\ntwo\n"


def test_a_deleted_file_is_put_back(file: AppendedFile, folder: Path) -> None:
    (folder / "a").unlink()
    assert "was deleted while the run wrote it, and was put back" in refused(file)
    assert (folder / "a").read_bytes() == b"one\n"
    assert listing(folder) == {"a"}


def test_a_deleted_file_that_a_server_still_has_is_put_back(
    file: AppendedFile, folder: Path
) -> None:
    (folder / "a").rename(folder / ".nfs00000012")
    assert "was deleted while the run wrote it, and was put back" in refused(file)
    assert (folder / "a").read_bytes() == b"one\n"


def test_a_file_is_put_back_with_its_folder(file: AppendedFile, folder: Path) -> None:
    (folder / "a").unlink()
    folder.rmdir()
    assert "put back" in refused(file)
    assert (folder / "a").read_bytes() == b"one\n"


@pytest.mark.parametrize("with_folder", [False, True])
def test_a_moved_file_is_named(
    file: AppendedFile, folder: Path, tmp_path: Path, with_folder: bool
) -> None:
    if with_folder:
        folder.rename(tmp_path / "moved")
    else:
        (tmp_path / "moved").mkdir()
        (folder / "a").rename(tmp_path / "moved" / "a")
    assert f"was moved to {str(tmp_path / 'moved' / 'a')!r}" in refused(file)
    assert (tmp_path / "moved" / "a").read_bytes() == b"one\n"
    assert not (folder / "a").exists()


@pytest.mark.parametrize("kind", ["file", "link", "folder"])
def test_what_took_the_place_is_left(file: AppendedFile, folder: Path, kind: str) -> None:
    path = folder / "a"
    path.unlink()
    (folder / "a.saved-1").touch()
    match kind:
        case "file":
            path.write_text("of others")
        case "link":
            path.symlink_to("a.saved-1")
        case "folder":
            path.mkdir()
    assert f"the lines of the run are in {str(path)!r}"[:-1] + ".saved-2'" in refused(file)
    assert (folder / "a.saved-2").read_bytes() == b"one\n"
    assert (folder / "a.saved-1").read_bytes() == b""
    assert listing(folder) == {"a", "a.saved-1", "a.saved-2"}


@pytest.mark.parametrize("others", [b"one\nof others\n", b"o"])
def test_nothing_is_added_to_what_others_wrote(
    file: AppendedFile, folder: Path, others: bytes
) -> None:
    os.truncate(folder / "a", 0)
    with open(folder / "a", "ab") as other:
        other.write(others)
    assert f"it has {len(others)} bytes, not 4; nothing was added" in refused(file)
    assert (folder / "a").read_bytes() == others


def test_a_size_that_the_file_system_has_from_before_is_no_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """FUSE keeps the attributes of a name for a second, as those of a hard link that was made."""
    path = tmp_path / "out.jsonl"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND)
    file = AppendedFile(str(path), descriptor)
    before = os.lstat(path)
    monkeypatch.setattr(os, "lstat", lambda name: before)
    file.append(b"one\n")
    file.append(b"two\n")
    file.close()
    assert path.read_bytes() == b"one\ntwo\n"
