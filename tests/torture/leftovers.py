"""What a run that was killed may leave behind: processes, and files in shared memory."""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from tests.workload import Violation

GONE = 15.0  # seconds in which processes that lost their parent have to end


def check_session_gone(session: int) -> None:
    """Raise ``Violation`` when a process of the session outlives its leader, and end it."""
    deadline = time.monotonic() + GONE
    while left := _session(session):
        if time.monotonic() > deadline:
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            raise Violation(f"{len(left)} processes went on after the run had ended")
        time.sleep(0.05)


def _session(session: int) -> list[int]:
    """Processes of a session, but those that have ended and wait to be reaped."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            state, _, _, number = entry.read_text().rpartition(")")[2].split()[:4]
            if int(number) == session and state != "Z":
                found.append(int(entry.parent.name))
    return found


def unmapped(names: Iterable[str]) -> list[str]:
    """Of these names in ``/dev/shm`` those that no process maps, so that nobody removes them."""
    mapped = ""
    for path in Path("/proc").glob("[0-9]*/maps"):
        with contextlib.suppress(OSError):
            mapped += path.read_text()
    return sorted(name for name in names if f"/dev/shm/{name}" not in mapped)
