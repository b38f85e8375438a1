from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from blip2cli.storage import durable
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
    durable.write_file(str(tmp_path / "t"), str(tmp_path / "f"), b"new")
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
        durable.write_file(str(tmp_path / "t"), str(tmp_path / "f"), b"new")
    assert (tmp_path / "f").read_bytes() == b"old"
    assert listing(tmp_path) == {"f"}


def test_short_writes_are_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, data: write(descriptor, data[:3]))
    durable.write_file(str(tmp_path / "t"), str(tmp_path / "f"), b"more than three bytes")
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
