"""Runs a case with one version of the command, and reads back everything it left."""

from __future__ import annotations

import os
import pty
import shlex
import shutil
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

from tests.equivalence.cases import Case
from tests.equivalence.normalise import describe, normalise

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


def command_of(version: str, folder: Path) -> str:
    """The executable of a version: itself, or for a checkout one written into ``folder``."""
    path = Path(version).resolve()
    if path.is_file():
        return str(path)
    if not (path / "blip2cli" / "__init__.py").is_file():
        raise SystemExit(f"{version} is neither an executable nor a checkout of blip2cli.")
    python = path / ".venv" / "bin" / "python"
    wrapper = folder / "blip2cli"
    folder.mkdir(parents=True)
    wrapper.write_text(
        _WRAPPER.format(
            python=python if python.is_file() else sys.executable, checkout=os.fspath(path)
        )
    )
    wrapper.chmod(0o755)
    return str(wrapper)


def run_case(case: Case, command: str, material: Path, folder: Path) -> Outcome:
    """Run the lines of ``case`` in ``folder``, a copy of ``material`` that is removed again."""
    shutil.copytree(material, folder, symlinks=True)
    home = folder.with_name(folder.name + ".home")
    home.mkdir()
    try:
        parts: dict[str, str] = {}
        for number, line in enumerate(case.lines, 1):
            code, stdout, stderr = _run_line(line, case, command, folder, home)
            parts[f"{number}.exit"] = f"{code}\n"
            parts[f"{number}.stdout"] = normalise(stdout.decode(errors="backslashreplace"), folder)
            parts[f"{number}.stderr"] = normalise(stderr.decode(errors="backslashreplace"), folder)
        return Outcome(parts | _files(folder, material))
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(home)


def _run_line(
    line: str, case: Case, command: str, folder: Path, home: Path
) -> tuple[int, bytes, bytes]:
    arguments = ["sh", "-c", line[1:]] if line.startswith("!") else [command, *shlex.split(line)]
    stdin = (folder / case.stdin).read_bytes() if case.stdin else b""
    environment = {
        "PATH": os.environ["PATH"],
        "HOME": str(home),
        "HF_HOME": str(home / "hf"),
        "HF_HUB_OFFLINE": "1",
        "OMP_NUM_THREADS": "1",
        "COLUMNS": "100",
        "LANG": "C.UTF-8",
        "PYTHONDONTWRITEBYTECODE": "1",
        **case.env,
    }
    if not case.terminal:
        done = subprocess.run(
            arguments, cwd=folder, env=environment, input=stdin, capture_output=True, timeout=_LIMIT
        )
        return done.returncode, done.stdout, done.stderr
    master, slave = pty.openpty()
    with subprocess.Popen(
        arguments,
        cwd=folder,
        env=environment | {"TERM": "xterm"},
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
