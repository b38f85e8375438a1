"""Run the command on a pseudo-terminal, as a person would."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import signal
import struct
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

_ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


@dataclass(frozen=True)
class Shown:
    """What appeared on the terminal, and how the command ended."""

    raw: str
    exit_code: int

    @property
    def text(self) -> str:
        """Without colours and cursor movements, carriage returns as line ends."""
        return _ESCAPES.sub("", self.raw).replace("\r", "\n")


def on_terminal(
    command: Sequence[str | Path],
    cwd: Path,
    env: Mapping[str, str],
    columns: int = 100,
    on_output: Callable[[int, str], None] | None = None,
) -> Shown:
    """Run ``command`` on a terminal of its own; ``on_output(pid, all so far)`` may send signals."""
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(cwd)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a background job's child ignores it
        os.execve(command[0], [str(part) for part in command], dict(env))
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
    seen = b""
    deadline = time.monotonic() + 300
    while time.monotonic() < deadline:
        if not select.select([terminal], [], [], 1)[0]:
            continue
        try:
            piece = os.read(terminal, 65536)
        except OSError:  # Linux's way to say that the other end is closed
            break
        if not piece:
            break
        seen += piece
        if on_output is not None:
            on_output(pid, seen.decode(errors="replace"))
    os.close(terminal)
    status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    return Shown(seen.decode(errors="replace"), status)
