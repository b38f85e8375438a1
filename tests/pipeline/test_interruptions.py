"""What may happen to a run from outside, and that ``--resume`` makes good for it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.torture.kills import IMAGES
from tests.torture.sources import draw_source
from tests.torture.work import (
    Reference,
    Work,
    check_final,
    check_finished,
    check_legal,
    check_sentence,
)
from tests.torture.zygote import Child, Zygote

both_formats = pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_source(tmp_path_factory.mktemp("source") / "images", IMAGES)


@pytest.fixture(scope="module")
def references(
    zygote: Zygote, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Reference]:
    root = tmp_path_factory.mktemp("unbroken")
    return {
        suffix: Work(source, suffix).unbroken(zygote, root / suffix[1:])
        for suffix in (".jsonl", ".parquet")
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def stop_half_way(work: Work, zygote: Zygote, folder: Path, *flags: str) -> Child:
    """Start a run and return it stopped (SIGSTOP) when some rows are on disk."""
    child = work.start(zygote, folder, *flags, batch_size=2)
    child.go()
    marks = (work.name, f".{work.name}.part-000002")
    deadline = time.monotonic() + 100
    while not any((folder / mark).exists() for mark in marks):
        assert time.monotonic() < deadline
        assert not child.ended(0.001)
    child.signal(signal.SIGSTOP)
    assert not child.ended(0.01)
    return child


def check_resumed(work: Work, zygote: Zygote, folder: Path, reference: Reference) -> None:
    check_finished(work.start(zygote, folder, "--resume").wait())
    check_final(folder, reference)


@both_formats
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_what_is_finished_and_a_resume_does_the_rest(
    number: signal.Signals,
    suffix: str,
    source: Path,
    zygote: Zygote,
    folder: Path,
    references: dict[str, Reference],
) -> None:
    work = Work(source, suffix)
    child = stop_half_way(work, zygote, folder)
    passing = (".lock", ".tmp", ".next")  # there for a moment only
    before = {path.name for path in folder.iterdir() if not path.name.endswith(passing)}
    child.signal(number)
    child.signal(signal.SIGCONT)
    assert child.wait().code == 128 + number
    check_legal(folder, [references[suffix]])
    assert before <= {path.name for path in folder.iterdir()}
    check_resumed(work, zygote, folder, references[suffix])


def test_a_second_signal_ends_it_at_once_without_a_torn_file(
    source: Path, zygote: Zygote, folder: Path, references: dict[str, Reference]
) -> None:
    work = Work(source, ".jsonl")
    child = stop_half_way(work, zygote, folder)
    child.signal(signal.SIGCONT)
    while not child.ended(0.002):
        child.signal(signal.SIGINT)
    assert child.wait().code == 130
    check_legal(folder, [references[".jsonl"]])
    assert (folder / work.name).read_bytes().endswith(b"\n")
    check_resumed(work, zygote, folder, references[".jsonl"])


@both_formats
def test_a_second_run_on_the_same_output_is_refused(
    suffix: str, source: Path, zygote: Zygote, folder: Path, references: dict[str, Reference]
) -> None:
    work = Work(source, suffix)
    first = stop_half_way(work, zygote, folder)
    for flag in ("--resume", "--overwrite"):
        ended = work.start(zygote, folder, flag).wait()
        check_sentence(ended)
        assert ended.code == 2
    first.signal(signal.SIGCONT)
    check_finished(first.wait())
    check_final(folder, references[suffix])


@both_formats
def test_a_folder_that_vanishes_ends_the_run_with_a_sentence(
    suffix: str, source: Path, zygote: Zygote, folder: Path
) -> None:
    # Inline, so that no file of failures has to be made and tells of it by chance.
    child = stop_half_way(Work(source, suffix, ("--errors", "inline")), zygote, folder)
    shutil.rmtree(folder)
    child.signal(signal.SIGCONT)
    ended = child.wait()
    check_sentence(ended)
    assert ended.code == 1


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 KiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    with mounted(disk, "-t", "tmpfs", "-o", "size=16k", "torture"):
        yield disk


class mounted:  # noqa: N801 - used like a function
    """Mount something on ``place``, or skip the test where that is not allowed."""

    def __init__(self, place: Path, *arguments: str | Path) -> None:
        self._place = place
        self._arguments = arguments

    def __enter__(self) -> None:
        command = ["mount", *map(str, self._arguments), str(self._place)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            pytest.skip(f"mounting is not allowed here ({done.stderr.strip()})")

    def __exit__(self, *exc: object) -> None:
        subprocess.run(["umount", "--lazy", str(self._place)], check=True)


@both_formats
def test_a_full_disk_keeps_what_is_safe_and_a_larger_one_takes_the_rest(
    suffix: str,
    source: Path,
    zygote: Zygote,
    small_disk: Path,
    references: dict[str, Reference],
) -> None:
    work = Work(source, suffix)
    # Four pages of 4 KiB, of which the ballast takes all but one or two.
    folder = small_disk / "folder"
    folder.mkdir()
    (small_disk / "ballast").write_bytes(b"x" * 4096)
    ended = work.start(zygote, folder, batch_size=2).wait()
    check_sentence(ended)
    assert ended.code == 1
    assert "No space left on device" in ended.stderr
    check_legal(folder, [references[suffix]])
    grow = ["mount", "-o", "remount,size=4m", str(small_disk)]
    subprocess.run(grow, check=True)
    check_resumed(work, zygote, folder, references[suffix])


def test_a_read_only_folder_is_named_before_anything_is_loaded(
    source: Path, zygote: Zygote, folder: Path, tmp_path: Path
) -> None:
    """Of a bind mount, because permission bits do not bind an administrator."""
    with mounted(folder, "--bind", folder):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        for flags in ((), ("--resume",)):
            ended = Work(source, ".jsonl").start(zygote, folder, *flags).wait()
            check_sentence(ended)
            assert ended.code == 2
            assert "Read-only file system" in ended.stderr
    assert list(folder.iterdir()) == []
