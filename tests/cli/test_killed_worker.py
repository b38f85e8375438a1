"""A worker process that is killed from outside costs nothing, however the run is going."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
from pathlib import Path

from tests.command import COMMAND, environment
from tests.processes import children


def test_a_run_survives_a_killed_worker(images: Path, checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / "many"
    folder.mkdir()
    names = [f"{number:02}.png" for number in range(60)]
    for number, name in enumerate(names):
        (folder / name).hardlink_to(images / ("a.png", "d.png")[number % 2])
    arguments = ("caption", folder, "--model", checkpoint, "--workers", "2", "--batch-size", "3")
    process = subprocess.Popen(
        [COMMAND, *map(str, arguments), "-o", "out.jsonl"],
        cwd=tmp_path,
        env=environment(tmp_path / "hf"),
        stderr=subprocess.PIPE,
        text=True,
    )
    out = tmp_path / "out.jsonl"
    deadline = time.monotonic() + 200
    while not (out.exists() and out.stat().st_size):
        assert time.monotonic() < deadline
        assert process.poll() is None
        time.sleep(0.005)
    # The run holds still while the worker is chosen and killed, so that it is in its midst.
    os.kill(process.pid, signal.SIGSTOP)
    before = len(out.read_text().splitlines())
    workers = children(process.pid)
    assert 0 < before < 60
    assert len(workers) == 2
    os.kill(max(workers), signal.SIGKILL)
    os.kill(process.pid, signal.SIGCONT)
    _, said = process.communicate(timeout=200)
    assert process.returncode == 0, said
    assert said.startswith("60 images captioned; ")
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [row["file_name"] for row in rows] == names
    assert {(row["width"], row["height"], row["caption"]) for row in rows[::2]} == {
        (40, 30, rows[0]["caption"])
    }
    assert {(row["width"], row["height"], row["caption"]) for row in rows[1::2]} == {
        (20, 20, rows[1]["caption"])
    }
    assert not (tmp_path / "out.jsonl.errors").exists()
