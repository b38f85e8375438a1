"""A command that is interrupted while its modules are imported."""

from __future__ import annotations

import signal
import subprocess
import sys

import pytest

from blip2cli.cli import app


def test_ends_by_the_signal_without_a_traceback() -> None:
    script = "import blip2cli.cli, os, signal; os.kill(os.getpid(), signal.SIGINT)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert (done.returncode, done.stderr) == (-signal.SIGINT, b"")


def test_other_errors_keep_their_traceback() -> None:
    script = "import blip2cli.cli; raise LookupError('lost')"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, check=False)
    assert done.returncode == 1
    assert b"Traceback" in done.stderr
    assert b"LookupError: lost" in done.stderr


def test_ends_with_130_while_options_are_declared(monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(commands: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(app, "application", interrupted)
    assert app.call(["caption", "photos"]) == 130
