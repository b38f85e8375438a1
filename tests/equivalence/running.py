"""Runs a case with one version of the command, and reads back everything it left."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.equivalence.cases import Case
from tests.equivalence.normalise import describe, normalise
from tests.equivalence.warm import WarmStarter

_LIMIT = 600.0  # seconds a command may take

_WRAPPER = """#!{python}
import os, sys
sys.path[0] = {checkout!r}
os.environ["PYTHONPATH"] = {checkout!r}
from blip2cli.cli.app import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Outcome:
    """What a case left, as text: ``1.stdout``, ``1.exit`` … for its lines, ``file:NAME`` …"""

    parts: dict[str, str]


class Version:
    """One version of the command: a checkout, or an executable."""

    def __init__(self, path: str, folder: Path, warm: bool) -> None:
        """``folder`` takes what is needed beside; ``warm``: fork from a process with libraries."""
        self._home = folder / "home"
        self._home.mkdir(parents=True)
        self._local = threading.local()
        self._started: list[WarmStarter] = []
        place = Path(path).resolve()
        self._checkout = str(place)
        self._python = sys.executable
        self._warm = warm and place.is_dir()
        if place.is_file():
            self._command = str(place)
            return
        if not (place / "blip2cli" / "__init__.py").is_file():
            raise SystemExit(f"{path} is neither an executable nor a checkout of blip2cli.")
        if (place / ".venv" / "bin" / "python").is_file():
            self._python = str(place / ".venv" / "bin" / "python")
        wrapper = folder / "blip2cli"
        wrapper.write_text(_WRAPPER.format(python=self._python, checkout=self._checkout))
        wrapper.chmod(0o755)
        self._command = str(wrapper)

    def run(self, case: Case, material: Path, folder: Path) -> Outcome:
        """Run the lines of a case in ``folder``, a copy of ``material`` that is removed again."""
        shutil.copytree(material, folder, symlinks=True)
        try:
            parts: dict[str, str] = {}
            for number, line in enumerate(case.lines, 1):
                code, *streams = self._run_line(line, case, folder)
                parts[f"{number}.exit"] = f"{code}\n"
                for name, data in zip(("stdout", "stderr"), streams, strict=True):
                    text = data.decode(errors="backslashreplace")
                    parts[f"{number}.{name}"] = normalise(text, folder)
            return Outcome(parts | _files(folder, material))
        finally:
            shutil.rmtree(folder)

    def close(self) -> None:
        """End the processes that were started ahead of their commands."""
        for starter in self._started:
            starter.close()

    def _run_line(self, line: str, case: Case, folder: Path) -> tuple[int, bytes, bytes]:
        stdin = (folder / case.stdin).read_bytes() if case.stdin else b""
        environment = self._environment() | case.env
        if line.startswith("!"):
            return _run(["sh", "-c", line[1:]], folder, environment, stdin)
        arguments = shlex.split(line)
        if case.terminal:
            return _run_on_terminal([self._command, *arguments], folder, environment)
        if self._warm and case.loads:
            return self._starter().run(arguments, folder, environment, stdin)
        return _run([self._command, *arguments], folder, environment, stdin)

    def _environment(self) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self._home),
            "HF_HOME": str(self._home / "hf"),
            "HF_HUB_OFFLINE": "1",
            "OMP_NUM_THREADS": "1",
            "COLUMNS": "100",
            "LANG": "C.UTF-8",
        }

    def _starter(self) -> WarmStarter:
        """This thread's own."""
        if not hasattr(self._local, "starter"):
            self._local.starter = WarmStarter(self._python, self._checkout, self._environment())
            self._started.append(self._local.starter)
        starter: WarmStarter = self._local.starter
        return starter


def _run(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str], stdin: bytes
) -> tuple[int, bytes, bytes]:
    done = subprocess.run(
        arguments, cwd=folder, env=environment, input=stdin, capture_output=True, timeout=_LIMIT
    )
    return done.returncode, done.stdout, done.stderr


def _run_on_terminal(
    arguments: Sequence[str], folder: Path, environment: Mapping[str, str]
) -> tuple[int, bytes, bytes]:
    """The same with a terminal as stdout."""
    master, slave = pty.openpty()
    with subprocess.Popen(
        arguments,
        cwd=folder,
        env={**environment, "TERM": "xterm"},
        stdin=subprocess.DEVNULL,
        stdout=slave,
        stderr=subprocess.PIPE,
    ) as process:
        os.close(slave)
        shown: list[bytes] = []
        reader = threading.Thread(target=_drain, args=(master, shown))
        reader.start()
        _, stderr = process.communicate(timeout=_LIMIT)
        reader.join()
    os.close(master)
    return process.returncode, b"".join(shown), stderr


def _drain(master: int, shown: list[bytes]) -> None:
    """Read a terminal until its other end is closed, which Linux reports as an error."""
    while True:
        try:
            data = os.read(master, 65536)
        except OSError:
            return
        if not data:
            return
        shown.append(data)


def _files(folder: Path, material: Path) -> dict[str, str]:
    """Everything in ``folder`` that is not as it was in ``material``, and what was removed."""
    now, before = _listing(folder), _listing(material)
    found = {f"file:{name}": "removed\n" for name in before - now}
    for name in sorted(now):
        path, old = folder / name, material / name
        if path.is_dir():
            if name not in before:
                found[f"file:{name}"] = "folder\n"
        elif path.is_symlink():
            if name not in before:
                found[f"file:{name}"] = f"link to {os.readlink(path)}\n"
        elif name not in before or path.read_bytes() != old.read_bytes():
            found[f"file:{name}"] = normalise(describe(path), folder)
    return found


def _listing(folder: Path) -> set[str]:
    return {os.fsdecode(os.fsencode(path.relative_to(folder))) for path in folder.rglob("*")}
