"""Tells processes apart, and whether one still runs: a number comes back after a reboot, in another
container, or when numbers run out."""

from __future__ import annotations

import os


def boot_id() -> str:
    """This boot of this machine, the same in its containers; without /proc the machine itself."""
    try:
        with open("/proc/sys/kernel/random/boot_id", encoding="ascii") as file:
            return file.read().strip()
    except (OSError, ValueError):
        import uuid  # takes a while

        return f"{uuid.getnode():012x}"  # its network address


def pid_namespace() -> str | None:
    """The container that process numbers belong to. None where that is not known."""
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return None


def start_time(pid: int) -> int | None:
    """When a process started, in ticks since the boot; 0 if it has ended, None if not known."""
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            state, *fields = file.read().rpartition(b")")[2].split()
        return 0 if state in (b"Z", b"X") else int(fields[18])
    except (OSError, ValueError, IndexError):
        return None


def is_running(pid: int, started: int | None) -> bool | None:
    """Whether the process ``pid`` that had this ``start_time`` runs; None if it cannot be seen."""
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # of another user
    now = start_time(pid)
    return None if now is None or started is None else now == started
