"""What may happen to a run from outside, and that ``--resume`` makes good for it."""

from __future__ import annotations

import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.drawn_source import draw_source
from tests.fork_server import Child, ForkServer
from tests.torture.kills import IMAGES
from tests.workload import (
    Reference,
    Workload,
    check_final,
    check_finished,
    check_legal,
    check_sentence,
)

both_formats = pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_source(tmp_path_factory.mktemp("source") / "images", IMAGES)


@pytest.fixture(scope="module")
def references(
    fork_server: ForkServer, source: Path, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Reference]:
    root = tmp_path_factory.mktemp("unbroken")
    return {
        suffix: Workload(source, suffix).unbroken(fork_server, root / suffix[1:])
        for suffix in (".jsonl", ".parquet")
    }


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "folder"
    folder.mkdir()
    return folder


def stop_half_way(workload: Workload, fork_server: ForkServer, folder: Path, *flags: str) -> Child:
    """Start a run and return it stopped (SIGSTOP) when some rows are on disk."""
    child = workload.start(fork_server, folder, *flags, batch_size=2)
    child.go()
    marks = (workload.name, f".{workload.name}.part-000002")
    deadline = time.monotonic() + 100
    while not any((folder / mark).exists() for mark in marks):
        assert time.monotonic() < deadline
        assert not child.ended(0.001)
    child.signal(signal.SIGSTOP)
    assert not child.ended(0.01)
    return child


def check_resumed(
    workload: Workload, fork_server: ForkServer, folder: Path, reference: Reference
) -> None:
    check_finished(workload.start(fork_server, folder, "--resume").wait())
    check_final(folder, reference)


@both_formats
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_keeps_what_is_finished_and_a_resume_does_the_rest(
    number: signal.Signals,
    suffix: str,
    source: Path,
    fork_server: ForkServer,
    folder: Path,
    references: dict[str, Reference],
) -> None:
    workload = Workload(source, suffix)
    child = stop_half_way(workload, fork_server, folder)
    passing = (".lock", ".tmp", ".next")  # there for a moment only
    before = {path.name for path in folder.iterdir() if not path.name.endswith(passing)}
    child.signal(number)
    child.signal(signal.SIGCONT)
    assert child.wait().code == 128 + number
    check_legal(folder, [references[suffix]])
    assert before <= {path.name for path in folder.iterdir()}
    check_resumed(workload, fork_server, folder, references[suffix])


def test_a_second_signal_ends_it_at_once_without_a_torn_file(
    source: Path, fork_server: ForkServer, folder: Path, references: dict[str, Reference]
) -> None:
    workload = Workload(source, ".jsonl")
    child = stop_half_way(workload, fork_server, folder)
    child.signal(signal.SIGCONT)
    while not child.ended(0.002):
        child.signal(signal.SIGINT)
    assert child.wait().code == 130
    check_legal(folder, [references[".jsonl"]])
    assert (folder / workload.name).read_bytes().endswith(b"\n")
    check_resumed(workload, fork_server, folder, references[".jsonl"])


@both_formats
def test_a_second_run_on_the_same_output_is_refused(
    suffix: str,
    source: Path,
    fork_server: ForkServer,
    folder: Path,
    references: dict[str, Reference],
) -> None:
    workload = Workload(source, suffix)
    first = stop_half_way(workload, fork_server, folder)
    for flag in ("--resume", "--overwrite"):
        ended = workload.start(fork_server, folder, flag).wait()
        check_sentence(ended)
        assert ended.code == 2
    first.signal(signal.SIGCONT)
    check_finished(first.wait())
    check_final(folder, references[suffix])


@both_formats
def test_a_folder_that_vanishes_ends_the_run_with_a_sentence(
    suffix: str, source: Path, fork_server: ForkServer, folder: Path
) -> None:
    # Inline, so that no file of failures has to be made and tells of it by chance.
    child = stop_half_way(Workload(source, suffix, ("--errors", "inline")), fork_server, folder)
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
    fork_server: ForkServer,
    small_disk: Path,
    references: dict[str, Reference],
) -> None:
    workload = Workload(source, suffix)
    # Four pages of 4 KiB, of which the ballast takes all but one or two.
    folder = small_disk / "folder"
    folder.mkdir()
    (small_disk / "ballast").write_bytes(b"x" * 4096)
    ended = workload.start(fork_server, folder, batch_size=2).wait()
    check_sentence(ended)
    assert ended.code == 1
    assert "No space left on device" in ended.stderr
    check_legal(folder, [references[suffix]])
    grow = ["mount", "-o", "remount,size=4m", str(small_disk)]
    subprocess.run(grow, check=True)
    check_resumed(workload, fork_server, folder, references[suffix])


def test_a_read_only_folder_is_named_before_anything_is_loaded(
    source: Path, fork_server: ForkServer, folder: Path, tmp_path: Path
) -> None:
    """Of a bind mount, because permission bits do not bind an administrator."""
    with mounted(folder, "--bind", folder):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(folder)], check=True)
        for flags in ((), ("--resume",)):
            ended = Workload(source, ".jsonl").start(fork_server, folder, *flags).wait()
            check_sentence(ended)
            assert ended.code == 2
            assert "Read-only file system" in ended.stderr
    assert list(folder.iterdir()) == []
