from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from blip2cli.system.current_folder import leave_out_current_folder


def test_commands_and_modules_come_from_named_folders_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), "/named", *sys.path])
    for name, value in {
        "PATH": ":/usr/bin:.:bin:/bin:",
        "PYTHONPATH": ":/named",
        "PYTHONSAFEPATH": "",
    }.items():
        monkeypatch.setenv(name, value)
    leave_out_current_folder()
    assert os.environ["PATH"] == "/usr/bin:/bin"
    monkeypatch.setenv("PATH", ".")
    leave_out_current_folder()
    assert os.environ["PATH"] == os.defpath
    assert os.environ["PYTHONPATH"] == "/named"
    assert os.environ["PYTHONSAFEPATH"] == "1"
    assert str(tmp_path) not in sys.path
    assert sys.path[0] == "/named"


def test_a_folder_that_was_named_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [str(tmp_path), *sys.path])
    for value in (str(tmp_path), f":{tmp_path}", ""):
        monkeypatch.setenv("PYTHONPATH", value)
        leave_out_current_folder()
        assert sys.path[0] == str(tmp_path)


def test_python_m_takes_nothing_from_the_current_folder(tmp_path: Path) -> None:
    for name in ("typer", "rich", "socket", "dataclasses", "json"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('planted')")
    done = subprocess.run(
        [sys.executable, "-m", "blip2cli", "--version"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("blip2cli ")
