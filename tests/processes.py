"""Other processes, looked up by their parent or their group."""

from __future__ import annotations

import os
import time
from pathlib import Path


def _running() -> dict[int, list[str]]:
    """Ids of all processes that have not ended, and their fields of ``/proc/PID/stat`` after the
    name: state, parent, group, …"""
    found = {}
    for entry in filter(str.isdecimal, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{entry}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if fields[0] != "Z":
            found[int(entry)] = fields
    return found


def children(parent: int) -> set[int]:
    """Ids of the living children of one process."""
    return {pid for pid, fields in _running().items() if int(fields[1]) == parent}


def worker_processes() -> set[int]:
    """Ids of the living worker processes of this one."""
    found = set()
    for pid in children(os.getpid()):
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if b"worker_process" in command:
            found.add(pid)
    return found


def members(group: int) -> set[int]:
    """Ids of the living processes of one group."""
    return {pid for pid, fields in _running().items() if int(fields[2]) == group}


def of_session(session: int) -> set[int]:
    """Ids of the living processes of one session."""
    return {pid for pid, fields in _running().items() if int(fields[3]) == session}


def eventually_gone(pids: set[int], seconds: float = 60) -> bool:
    """Whether all of them end in time; their exit status may still be left to be taken."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if not pids & _running().keys():
            return True
        time.sleep(0.05)
    return False
