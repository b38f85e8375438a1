from __future__ import annotations

import os
import subprocess

import pytest

from blip2cli.system import processes


def test_a_process_is_known_by_its_number_and_its_start() -> None:
    started = processes.start_time(os.getpid())
    assert started
    assert processes.is_running(os.getpid(), started) is True
    assert processes.is_running(os.getpid(), started - 1) is False
    assert processes.is_running(os.getpid(), None) is None


def test_an_ended_process_does_not_run_even_if_nobody_has_waited_for_it() -> None:
    process = subprocess.Popen(["sleep", "60"])
    started = processes.start_time(process.pid)
    assert processes.is_running(process.pid, started) is True
    process.kill()
    os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
    assert processes.is_running(process.pid, started) is False  # a zombie
    process.wait()
    assert processes.is_running(process.pid, started) is False


def test_without_proc_a_machine_is_known_by_its_address(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(*args: object, **named: object) -> None:
        raise FileNotFoundError

    assert len(processes.boot_id()) == 36
    assert processes.pid_namespace()
    monkeypatch.setattr("builtins.open", missing)
    assert len(processes.boot_id()) == 12
    assert processes.start_time(os.getpid()) is None
