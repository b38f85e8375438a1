"""Checks of what a command prints."""

from __future__ import annotations

import subprocess


def error_sentence(done: subprocess.CompletedProcess[str], code: int = 2) -> str:
    """The one line an error leaves on stderr."""
    assert done.returncode == code, done.stderr
    assert done.stdout == ""
    lines = done.stderr.splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("blip2cli: ")
    assert "Traceback" not in lines[0]
    return lines[0].removeprefix("blip2cli: ")
