"""Signals to a whole group of processes, as a terminal or a launcher sends them, with a cluster
that was started for the run."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.command import COMMAND, Run, environment
from tests.drawn_source import draw_source
from tests.processes import eventually_gone, of_session

pytestmark = [pytest.mark.external, pytest.mark.filterwarnings("default")]
RUN = ("caption", "--model", "tiny", "--quiet", "--batch-size", "1")
RAY = ("--ray", "--ray-actors", "1")


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_source(tmp_path_factory.mktemp("signals") / "source", 60)


@pytest.fixture(scope="module")
def whole(source: Path, tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The rows of an unbroken run without Ray."""
    out = tmp_path_factory.mktemp("whole") / "out.jsonl"
    subprocess.run(
        [COMMAND, *RUN, source, "-o", out], env=environment(out.parent / "hf"), check=False
    )
    return out.read_bytes()


def started(source: Path, out: Path) -> subprocess.Popen[str]:
    """A run in a session of its own whose first rows are there."""
    child = subprocess.Popen(
        [COMMAND, *RUN, source, "-o", out, *RAY],
        env=environment(out.parent / "hf", RAY_ADDRESS="local"),
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    while not out.exists() or out.stat().st_size == 0:
        assert child.poll() is None
        time.sleep(0.01)
    return child


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_to_the_group_ends_the_run_with_what_is_under_way(
    number: signal.Signals, source: Path, whole: bytes, blip2cli: Run, tmp_path: Path
) -> None:
    out = tmp_path / "out.jsonl"
    child = started(source, out)
    session = of_session(child.pid)
    os.killpg(child.pid, number)
    assert child.communicate(timeout=60) == (None, "")
    assert child.returncode == 128 + number
    assert eventually_gone(session, 10)
    rows = out.read_bytes()
    assert whole.startswith(rows)
    assert rows.endswith(b"\n")
    assert blip2cli(*RUN, source, "-o", out, "--resume").returncode == 3
    assert out.read_bytes() == whole


def test_what_was_written_is_safe_when_rays_own_process_is_ended(
    source: Path, whole: bytes, blip2cli: Run, tmp_path: Path
) -> None:
    """Mostly Ray ends the run with it, at once; sometimes it leaves it waiting, or processes."""
    out = tmp_path / "out.jsonl"
    child = started(source, out)
    session = of_session(child.pid)
    for pid in session:
        with contextlib.suppress(OSError):  # one that has ended since
            if Path(f"/proc/{pid}/comm").read_text().strip() == "raylet":
                os.kill(pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        child.wait(timeout=20)
        assert child.returncode == 1
    for pid in session | of_session(child.pid):
        with contextlib.suppress(OSError):
            os.kill(pid, signal.SIGKILL)
    child.communicate()
    assert eventually_gone(session, 30)
    assert whole.startswith(out.read_bytes())
    assert blip2cli(*RUN, source, "-o", out, "--resume").returncode == 3
    assert out.read_bytes() == whole
