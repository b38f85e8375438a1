"""Workers run no code of others, need no place to write and leave nothing behind."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from blip2cli.images.batch_stream import BatchStream
from blip2cli.images.load_image import BatchArrays
from blip2cli.images.worker_pool import Worker
from tests.images.helpers import SPEC, made, options
from tests.processes import worker_processes

PLANTED = ("multiprocessing", "socket", "pickle", "tempfile", "numpy", "PIL", "sitecustomize")


def load_in_workers(count: int = 5) -> None:
    refs = [made(number) for number in range(count)]
    with BatchStream(refs, SPEC, options(2, 1)) as batches:
        items = [item for batch in batches for item in batch.items]
    assert [item.error for item in items] == [None] * count


@pytest.mark.parametrize("search", [None, "", ":", ":/nowhere"])
def test_nothing_from_the_current_folder_is_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, search: str | None
) -> None:
    for name in PLANTED:
        (tmp_path / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write('!')")
    (tmp_path / "python").write_text("#!/bin/sh\ntouch ran\n")
    (tmp_path / "python").chmod(0o755)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setenv("PATH", f":{os.environ['PATH']}")
    if search is not None:
        monkeypatch.setenv("PYTHONPATH", search)
    monkeypatch.setattr(sys, "path", ["", *sys.path])  # as in an interactive interpreter
    load_in_workers()
    assert not (tmp_path / "ran").exists()


def shared_memory(process: int) -> set[str]:
    """What a process has mapped of ``/dev/shm``, named semaphores included."""
    lines = Path(f"/proc/{process}/maps").read_text().splitlines()
    return {line.split()[-1] for line in lines if "/dev/shm" in line}


@pytest.mark.parametrize("folder", ["/nowhere", "/dev/null", "x" * 200])
def test_no_temporary_folder_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    place = tmp_path / folder
    if folder.startswith("x"):
        place.mkdir()
    for name in ("TMPDIR", "HOME", "XDG_CACHE_HOME", "XDG_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(place))
    before = shared_memory(os.getpid())
    refs = [made(number % 9) for number in range(40)]
    with BatchStream(refs, SPEC, options(2, 1)) as batches:
        next(batches)
        (worker,) = worker_processes()
        assert not place.is_dir() or not os.listdir(place)
        assert shared_memory(os.getpid()) == before
        assert shared_memory(worker) == set()
        assert len(list(batches)) == 19


def test_the_worker_that_is_waited_for_is_named_with_its_images(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    names, take = [], Worker.take
    refs = [made(number) for number in range(4)]
    with BatchStream(refs, SPEC, options(2, 1)) as batches:
        assert batches.waiting_for is None
        (process,) = worker_processes()

        def noted(worker: Worker) -> BatchArrays:
            names.append(batches.waiting_for)
            return take(worker)

        monkeypatch.setattr(Worker, "take", noted)
        assert len(list(batches)) == 2
    first = f"worker process {process}, which loads {refs[0].file_name} and 1 more"
    assert names == [first, first.replace(refs[0].file_name, refs[2].file_name)]
