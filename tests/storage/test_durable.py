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


def plant(kind: str, name: Path, victim: Path) -> None:
    """What may lie in a folder under a name that we use."""
    victim.write_text("precious")
    match kind:
        case "link":
            name.symlink_to(victim)
        case "dangling link":
            name.symlink_to(name.parent / "nothing")
        case "hard link":
            os.link(victim, name)
        case "pipe":
            os.mkfifo(name)
        case "folder":
            name.mkdir()


PLANTED = ("link", "dangling link", "hard link", "pipe", "folder")


@pytest.mark.parametrize("kind", PLANTED)
def test_a_file_is_created_under_a_free_name_only(tmp_path: Path, kind: str) -> None:
    plant(kind, tmp_path / "t", tmp_path / "victim")
    before = listing(tmp_path)
    with pytest.raises(FileExistsError):
        durable.create(str(tmp_path / "t"))
    with pytest.raises(FileExistsError):
        durable.replace_file(str(tmp_path / "t"), str(tmp_path / "f"), b"new")
    with pytest.raises(FileExistsError), durable.written(str(tmp_path / "t"), str(tmp_path / "f")):
        pass
    assert listing(tmp_path) == before
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize("kind", ["link", "dangling link", "pipe", "folder"])
def test_only_regular_files_are_opened(tmp_path: Path, kind: str) -> None:
    plant(kind, tmp_path / "t", tmp_path / "victim")
    for flags in (os.O_RDWR, os.O_WRONLY):
        with pytest.raises(durable.NotRegularError, match=r"is a symbolic link|is no regular"):
            durable.open_regular(str(tmp_path / "t"), flags)


@pytest.mark.parametrize("links", [True, False])
@pytest.mark.parametrize("kind", PLANTED)
def test_without_replace_nothing_that_is_there_is_touched(
    tmp_path: Path, kind: str, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(kind, tmp_path / "f", tmp_path / "victim")
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    before = listing(tmp_path)
    with pytest.raises(FileExistsError):
        durable.replace_file(str(tmp_path / "t"), str(tmp_path / "f"), b"new", replace=False)
    assert listing(tmp_path) == before
    assert (tmp_path / "victim").read_text() == "precious"


def no_links(*_: object, **__: object) -> None:
    raise OSError(errno.EPERM, "Operation not permitted")


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_or_a_copy(
    tmp_path: Path, links: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not links:
        monkeypatch.setattr(os, "link", no_links)
    (tmp_path / "f").write_bytes(b"rows")
    durable.link(str(tmp_path / "f"), str(tmp_path / "g"), str(tmp_path / "t"))
    assert (tmp_path / "g").read_bytes() == b"rows"
    assert os.path.samefile(tmp_path / "f", tmp_path / "g") == links
    with pytest.raises(FileExistsError):
        durable.link(str(tmp_path / "f"), str(tmp_path / "g"), str(tmp_path / "t"))
    assert listing(tmp_path) == {"f", "g"}


def test_a_link_that_a_server_made_at_the_first_request_is_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    link = os.link

    def asked_twice(source: str, target: str, **options: bool) -> None:
        link(source, target, **options)
        link(source, target, **options)

    monkeypatch.setattr(os, "link", asked_twice)
    durable.replace_file(str(tmp_path / "t"), str(tmp_path / "f"), b"new", replace=False)
    assert (tmp_path / "f").read_bytes() == b"new"
    assert listing(tmp_path) == {"f"}


def test_temporary_names_are_random_and_swept_for_their_file_only(tmp_path: Path) -> None:
    final = str(tmp_path / "a.jsonl")
    names = {durable.temporary_name(final) for _ in range(100)}
    assert len(names) == 100
    Path(durable.temporary_name(final)).write_text("left")
    folder = Path(durable.temporary_name(final, "old"))
    folder.mkdir()
    (folder / "file").touch()
    kept = {"a.jsonl", ".a.jsonl.tmp", ".a.jsonl.lock", ".a.jsonl.0123456.tmp", "notes"}
    for name in kept:
        (tmp_path / name).touch()
    other = Path(durable.temporary_name(str(tmp_path / "a.jsonl.gz")))
    other.touch()
    link = Path(durable.temporary_name(final))
    link.symlink_to("notes")
    (tmp_path / "a.jsonl").rename(tmp_path / "moved")
    durable.remove_temporaries(final)
    assert folder.exists()  # perhaps all there is
    (tmp_path / "moved").rename(final)
    durable.remove_temporaries(final)
    assert listing(tmp_path) == kept | {other.name, link.name}
