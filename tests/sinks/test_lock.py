from __future__ import annotations

import dataclasses
import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from blip2cli.errors import OutputError
from blip2cli.sinks.lock import OutputLock
from blip2cli.sinks.lock_holder import Holder
from blip2cli.storage import durable
from tests.sinks.helpers import listing
from tests.storage.test_durable import plant

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
            with pytest.raises(
                OutputError, match=rf"process {process.pid} on .* is writing"
            ) as caught:
                OutputLock(str(out)).__enter__()
            assert f"wait for its end or end it ('kill {process.pid}')" in str(caught.value)
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
        assert f'"process": {os.getpid()}, ' in (tmp_path / ".out.jsonl.lock").read_text()
    assert listing(tmp_path) == set()


def unsupported(descriptor: int, operation: int) -> None:
    raise OSError(95, "Operation not supported")


def granted(descriptor: int, operation: int) -> None:
    """Kernel locks of another machine's own."""


@pytest.fixture(params=[unsupported, granted])
def kernel_locks_do_not_reach(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fcntl.flock", request.param)


@pytest.mark.usefixtures("kernel_locks_do_not_reach")
def test_where_kernel_locks_do_not_reach_the_named_process_is_looked_for(tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    with hold(out) as process:
        try:
            with pytest.raises(OutputError, match=rf"process {process.pid} on .* is writing"):
                OutputLock(str(out)).__enter__()
        finally:
            process.kill()
    with OutputLock(str(out)) as lock:
        assert lock.taken_from is not None


@pytest.mark.usefixtures("kernel_locks_do_not_reach")
def test_a_number_that_another_process_has_now_does_not_count(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    leave_lock(tmp_path, process=os.getpid(), started=1)
    with OutputLock(str(tmp_path / "out.jsonl")) as lock:
        assert lock.taken_from == f"process {os.getpid()} on elsewhere"


def leave_lock(folder: Path, age: float = 0.0, **values: object) -> Path:
    """The lock of a run on another machine, or as ``values`` say."""
    lock = folder / ".out.jsonl.lock"
    with durable.written(str(folder / "t"), str(lock)) as file:
        own = Holder.this_run(os.fstat(file.fileno()).st_dev, kernel=True)
        file.write(dataclasses.replace(own, **{"host": "elsewhere", **values}).as_bytes())  # type: ignore[arg-type]
    then = time.time() - age
    os.utime(lock, (then, then))
    return lock


@pytest.fixture
def on_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Holder, "on_local_disk", False)


@pytest.mark.parametrize("content", [b"", None])
def test_on_a_local_disk_the_kernel_knows_even_after_a_power_cut(
    tmp_path: Path, content: bytes | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Holder, "on_local_disk", True)
    lock = leave_lock(tmp_path, process=7, boot="before the power cut", namespace="pid:[7]")
    if content is not None:
        lock.write_bytes(content)
    with OutputLock(str(tmp_path / "out.jsonl")) as taken:
        assert taken.taken_from == (None if content is not None else "process 7 on elsewhere")


AWAY = [
    pytest.param({"boot": "another"}, id="machine"),
    pytest.param({"namespace": "pid:[7]", "kernel": False}, id="container"),
    pytest.param({"namespace": "pid:[7]", "device": -1}, id="container with a mount of its own"),
]


@pytest.mark.usefixtures("on_a_network")
@pytest.mark.parametrize("where", AWAY)
def test_a_run_that_cannot_be_seen_counts_while_it_gives_signs_of_life(
    tmp_path: Path, where: dict[str, object]
) -> None:
    lock = leave_lock(tmp_path, 20, process=7, since="2026-01-01 10:00:00", **where)
    before = lock.read_bytes()
    with pytest.raises(OutputError) as caught:
        OutputLock(str(tmp_path / "out.jsonl")).__enter__()
    assert "(process 7 on elsewhere, since 2026-01-01 10:00:00 UTC) is writing" in str(caught.value)
    assert f"if it was killed, try again in 70 s or remove {str(lock)!r}" in str(caught.value)
    assert lock.read_bytes() == before
    assert listing(tmp_path) == {lock.name}


@pytest.mark.parametrize("local", [True, False])
def test_the_kernel_knows_that_a_run_in_another_container_has_ended(
    tmp_path: Path, local: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Holder, "on_local_disk", local)
    leave_lock(tmp_path, process=7, namespace="pid:[7]")
    with OutputLock(str(tmp_path / "out.jsonl")) as lock:
        assert lock.taken_from == "process 7 on elsewhere"


@pytest.mark.usefixtures("on_a_network")
@pytest.mark.parametrize("where", AWAY)
def test_a_run_that_gave_no_sign_for_long_is_taken_for_ended(
    tmp_path: Path, where: dict[str, object]
) -> None:
    leave_lock(tmp_path, 100, process=7, **where)
    with OutputLock(str(tmp_path / "out.jsonl"), sign_seconds=0.01) as lock:
        assert lock.taken_from == "process 7 on elsewhere"


@pytest.mark.usefixtures("on_a_network")
def test_clocks_that_differ_are_no_reason_to_take_a_lock(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: os.utime(lock))
    lock = leave_lock(tmp_path, 1000, process=7, boot="another")
    with pytest.raises(OutputError, match="process 7 on elsewhere"):
        OutputLock(str(tmp_path / "out.jsonl")).__enter__()


def test_a_holder_gives_signs_of_life(tmp_path: Path) -> None:
    lock = tmp_path / ".out.jsonl.lock"
    with OutputLock(str(tmp_path / "out.jsonl"), sign_seconds=0.01):
        os.utime(lock, (1, 1))
        while lock.stat().st_mtime == 1:
            time.sleep(0.01)


def test_of_two_that_find_an_abandoned_lock_one_gets_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The slower one moves the lock of the quicker one away, sees that, and puts it back."""
    monkeypatch.setattr("fcntl.flock", unsupported)
    out = str(tmp_path / "out.jsonl")
    (tmp_path / ".out.jsonl.lock").write_text("process 1 on elsewhere\n")
    quicker, rename = OutputLock(out), os.rename

    def late(source: str, target: str) -> None:
        monkeypatch.setattr(os, "rename", rename)
        quicker.__enter__()
        rename(source, target)

    monkeypatch.setattr(os, "rename", late)
    with pytest.raises(OutputError, match=f"process {os.getpid()} on"):
        OutputLock(out).__enter__()
    assert quicker.taken_from == "process 1 on elsewhere"
    assert listing(tmp_path) == {".out.jsonl.lock"}
    quicker.__exit__()
    assert listing(tmp_path) == set()


def test_a_start_at_the_moment_when_another_run_sweeps_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = str(tmp_path / "out.jsonl")
    this_run = Holder.this_run

    def swept(device: int, kernel: bool) -> Holder:
        durable.remove_temporaries(out)
        return this_run(device, kernel)

    monkeypatch.setattr(Holder, "this_run", swept)
    with pytest.raises(OutputError, match="Another run has just begun"):
        OutputLock(out).__enter__()


def test_a_lock_that_was_removed_and_taken_by_another_is_left(tmp_path: Path) -> None:
    out = str(tmp_path / "out.jsonl")
    with OutputLock(out):
        (tmp_path / ".out.jsonl.lock").unlink()
        other = OutputLock(out)
        other.__enter__()
    assert listing(tmp_path) == {".out.jsonl.lock"}
    other.__exit__()


@pytest.mark.parametrize("kind", ["link", "dangling link", "hard link", "pipe", "folder"])
def test_whatever_lies_at_the_name_of_the_lock_is_left(tmp_path: Path, kind: str) -> None:
    plant(kind, tmp_path / ".out.jsonl.lock", tmp_path / "victim")
    before = listing(tmp_path)
    with pytest.raises(OutputError, match=r"out.jsonl.lock', where the lock .* belongs, is (a|no)"):
        OutputLock(str(tmp_path / "out.jsonl")).__enter__()
    assert listing(tmp_path) == before
    assert (tmp_path / "victim").read_text() == "precious"


@pytest.mark.parametrize(
    "content", ["notes", "{}", "[" * 4096, '{"lock_of": "blip2cli", "process": -1}', "\0" * 9]
)
def test_a_file_of_others_at_the_name_of_the_lock_is_left(tmp_path: Path, content: str) -> None:
    (tmp_path / ".out.jsonl.lock").write_text(content)
    with pytest.raises(OutputError, match="is no lock of this tool; move it away"):
        OutputLock(str(tmp_path / "out.jsonl")).__enter__()
    assert (tmp_path / ".out.jsonl.lock").read_text() == content


def test_a_name_that_is_too_long_for_the_files_beside_it(tmp_path: Path) -> None:
    with pytest.raises(OutputError, match=r"\(File name too long\); choose a shorter name"):
        OutputLock(str(tmp_path / ("n" * 250 + ".jsonl"))).__enter__()


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
    others.add(os.path.basename(durable.temporary_name("other.jsonl")))
    for name in (*others, os.path.basename(durable.temporary_name("out.jsonl"))):
        (tmp_path / name).touch()
    with OutputLock(str(tmp_path / "out.jsonl")) as lock:
        lock.sweep()
    assert listing(tmp_path) == others
