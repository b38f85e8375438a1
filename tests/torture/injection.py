"""Making single system calls of a run fail, or killing it just before one, with strace.

A run is traced once without a fault. That gives the calls that touch the output's folder, each
with its number among the calls of its name there, and the paths they name. With ``-P`` for these
paths strace counts just such calls, so a number from the trace says where to inject a fault.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tests.fork_server import Child

MISSING = "strace is not installed (apt-get install strace); faults cannot be injected"

# What changes files or makes changes last, and what else may fail on an output's files.
CHANGING = (
    "openat", "write", "pwrite64", "writev", "fsync", "fdatasync", "ftruncate", "rename",
    "renameat", "renameat2", "unlink", "unlinkat", "link", "linkat", "fallocate", "mkdir",
)  # fmt: skip
OTHER = ("close", "read", "pread64", "getdents64", "flock", "fcntl")

# -y writes "3</path>" for descriptors; "(deleted)" follows the path of an unlinked file.
_CALL = re.compile(r"^(\d+) +(\w+)\(")
_PATH = re.compile(r'[<"](/[^>"]*)[>"]')


def available() -> bool:
    """Whether strace is there and may trace."""
    if shutil.which("strace") is None:
        return False
    done = subprocess.run(["strace", "-o", "/dev/null", "true"], capture_output=True, check=False)
    return done.returncode == 0


@dataclass(frozen=True)
class Call:
    """One system call that touched the output's folder."""

    name: str
    number: int  # among the calls of this name there, from 1
    text: str


@dataclass(frozen=True)
class Trace:
    """All calls of a run that touched the output's folder, and every path there they named.

    ``{pid}`` stands for the number of the process in paths.
    """

    calls: tuple[Call, ...]
    paths: tuple[str, ...]

    @classmethod
    def read(cls, log: Path, folder: Path, pid: int) -> Trace:
        """From the log of a run that was not disturbed."""
        numbers: Counter[tuple[str, str]] = Counter()  # strace counts for each thread
        calls: dict[tuple[str, int], Call] = {}
        paths = set()
        for line in log.read_text(errors="replace").splitlines():
            call = _CALL.match(line)
            named = [
                p for p in _PATH.findall(line) if Path(p) == folder or folder in Path(p).parents
            ]
            if call is None or not named:
                continue
            thread, name = call.groups()
            numbers[thread, name] += 1
            number = numbers[thread, name]
            calls.setdefault((name, number), Call(name, number, line.replace(f"{folder}/", "")))
            paths |= {path.replace(f"-{pid}", "-{pid}") for path in named}
        return cls(tuple(calls.values()), tuple(sorted(paths)))


def trace(child: Child, log: Path, paths: Iterable[str] = (), fault: str | None = None) -> None:
    """Attach strace to a child that waits and let it go; strace ends with it.

    ``fault`` is what follows ``-e inject=``.
    """
    command = ["strace", "-f", "-y", "-s", "0", "-o", str(log), "-p", str(child.pid)]
    command += ["-e", "signal=none", "-e", f"trace={','.join((*CHANGING, *OTHER))}"]
    for path in paths:
        command += ["-P", path.replace("{pid}", str(child.pid))]
    if fault is not None:
        command += ["-e", f"inject={fault}"]
    tracer = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    assert tracer.stderr is not None
    output = ""
    # With -P it says first which paths are symbolic links and so on.
    while "attached" not in output:
        line = tracer.stderr.readline()
        if not line:
            raise RuntimeError(f"strace could not attach: {output}")
        output += line
    child.tracer = tracer
    child.go()
