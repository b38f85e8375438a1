from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from blip2cli.errors import OutputError
from blip2cli.sinks.lock import OutputLock
from blip2cli.storage.durable import temporary_name
from tests.sinks.helpers import listing

HOLDER = """
import sys, time
from blip2cli.sinks.lock import OutputLock
with OutputLock(sys.argv[1]):
    print("held", flush=True)
    time.sleep(600)
"""


def hold(out: Path) -> subprocess.Popen[bytes]:
    """Another process that holds the lock."""
    process = subprocess.Popen([sys.executable, "-c", HOLDER, str(out)], stdout=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stdout.readline() == b"held\n"
    return process


def test_nothing_is_left_of_a_lock_that_was_released(tmp_path: Path) -> None:
    with OutputLock(str(tmp_path / "out.jsonl")) as lock:
        assert listing(tmp_path) == {".out.jsonl.lock"}
        assert lock.taken_from is None
    assert listing(tmp_path) == set()


def test_a_second_run_is_refused_and_names_the_writer(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with hold(out) as process:
        try:
            with pytest.raises(OutputError, match=rf"process {process.pid} on .* is writing"):
                OutputLock(str(out)).__enter__()
            with OutputLock(str(tmp_path / "other.jsonl")):
                pass
        finally:
            process.kill()


def test_the_lock_of_a_killed_process_is_taken_over(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with hold(out) as process:
        process.kill()
    assert listing(tmp_path) == {".out.jsonl.lock"}
    with OutputLock(str(out)) as lock:
        assert lock.taken_from is not None
        assert lock.taken_from.startswith(f"process {process.pid} on ")
        assert f"process {os.getpid()} on" in (tmp_path / ".out.jsonl.lock").read_text()
    assert listing(tmp_path) == set()


def test_without_kernel_locks_the_named_process_is_looked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unsupported(descriptor: int, operation: int) -> None:
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr("fcntl.flock", unsupported)
    out = tmp_path / "out.jsonl"
    with OutputLock(str(out)), pytest.raises(OutputError, match="is writing"):
        OutputLock(str(out)).__enter__()  # this process lives
    with hold(out) as process:
        process.kill()
    with OutputLock(str(out)) as lock:
        assert lock.taken_from is not None


def test_a_folder_where_nothing_can_be_created() -> None:
    with pytest.raises(OutputError, match="No file can be created"):
        OutputLock("/proc/out.jsonl").__enter__()  # not even by root


def test_a_lock_that_cannot_be_had_is_a_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(descriptor: int, operation: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("fcntl.flock", broken)
    with pytest.raises(OutputError, match=r"cannot be taken \(Input/output error\)"):
        OutputLock(str(tmp_path / "out.jsonl")).__enter__()


def test_the_holder_sweeps_up_the_temporary_files_of_a_killed_run(tmp_path: Path) -> None:
    others = {"out.jsonl", ".out.jsonl.meta.json", ".out.jsonl.meta.next", ".out.jsonl.tmp"}
    others.add(os.path.basename(temporary_name("other.jsonl")))
    for name in (*others, os.path.basename(temporary_name("out.jsonl"))):
        (tmp_path / name).touch()
    with OutputLock(str(tmp_path / "out.jsonl")) as lock:
        lock.sweep()
    assert listing(tmp_path) == others
