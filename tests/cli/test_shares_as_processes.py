"""Shares as real processes, started as launchers start them, killed and gone on with."""

from __future__ import annotations

import shlex
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest

from tests.command import COMMAND, environment
from tests.fork_server import Child, ForkServer

ROOT = Path(__file__).parents[2]
Told = Callable[[int, int], dict[str, str]]


def of_torchrun(index: int, count: int) -> dict[str, str]:
    return {"RANK": str(index), "WORLD_SIZE": str(count), "LOCAL_RANK": str(index)}


def of_a_slurm_array(index: int, count: int) -> dict[str, str]:
    """``sbatch --array=0-14:7``, say; every task of an array is a step's only one."""
    named = {"ID": 7 * index, "MIN": 0, "MAX": 7 * (count - 1), "COUNT": count, "STEP": 7}
    array = {f"SLURM_ARRAY_TASK_{name}": str(number) for name, number in named.items()}
    return array | {"SLURM_PROCID": "0", "SLURM_NTASKS": "1"}


def of_kubernetes(index: int, count: int) -> dict[str, str]:
    return {"JOB_COMPLETION_INDEX": str(index)}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of 48 images, of which three are none."""
    samples = sorted((ROOT / "sample_images").glob("*.png"))
    folder = tmp_path / "photos"
    for number in range(48):
        path = folder / f"{number % 5}/{number:02}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number % 16:
            shutil.copy(samples[number % len(samples)], path)
        else:
            path.write_bytes(b"no picture")
    return folder


def kill_half_way(run: Child, out: Path) -> bool:
    """Kill a run when it has written rows; False when it ended before."""
    run.go()
    deadline = time.monotonic() + 100
    while not run.ended():
        assert time.monotonic() < deadline
        if out.exists() and out.stat().st_size:
            run.signal(signal.SIGKILL)
            break
        time.sleep(0.002)
    return run.wait().code == -signal.SIGKILL


@pytest.mark.parametrize(
    ("count", "told", "share"),
    [
        (1, of_torchrun, "auto"),
        (2, of_torchrun, "auto"),
        (3, of_a_slurm_array, "auto"),
        (8, of_kubernetes, "auto/8"),
    ],
)
def test_killed_shares_become_the_bytes_of_one_process(
    photos: Path, fork_server: ForkServer, tmp_path: Path, count: int, told: Told, share: str
) -> None:
    command = ["caption", "photos", "--model", "tiny", "--workers", "0", "--batch-size", "2", "-q"]

    def start(out: str, variables: Mapping[str, str], *more: str) -> Child:
        return fork_server.start([*command, "-o", out, *more], tmp_path, variables=variables)

    one = start("all.jsonl", {})
    killed = 0
    for index in range(count):
        out = tmp_path / f"out-{index + 1}-of-{count}.jsonl"
        run = start("out-{shard}.jsonl", told(index, count), "--shard", share)
        killed += kill_half_way(run, out)
    assert killed
    runs = [
        start("out-{shard}.jsonl", told(index, count), "--shard", share, "--resume")
        for index in range(count)
    ]
    for run in [one, *runs]:
        run.go()
    assert one.wait().code == 3  # some images failed
    assert {run.wait().code for run in runs} <= {0, 3}
    merged = fork_server.start(["convert", "out-*.jsonl", "merged.jsonl"], tmp_path).wait()
    assert merged.code == 0, merged.stderr
    for ending in ("", ".errors"):
        expected = (tmp_path / f"all.jsonl{ending}").read_bytes()
        assert (tmp_path / f"merged.jsonl{ending}").read_bytes() == expected
    verified = fork_server.start(["verify", "out-*.jsonl", "merged.jsonl"], tmp_path).wait()
    assert verified.code == 0, verified.stdout
    assert f"; all {count} shares." in verified.stdout


def test_xargs(photos: Path, fork_server: ForkServer, tmp_path: Path) -> None:
    """The recipe for one machine, as it stands in the documentation."""
    command = ["caption", "photos", "--model", "tiny", "--workers", "0", "-q", "--limit", "12"]
    done = subprocess.run(
        f"seq 2 | xargs -P 2 -I{{}} {COMMAND} {shlex.join(command)} --shard {{}}/2 "
        "-o out-{}.parquet",
        shell=True,
        cwd=tmp_path,
        env=environment(tmp_path / "hf"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode in (0, 123), done.stderr  # images that failed
    one = fork_server.start([*command, "-o", "all.parquet"], tmp_path).wait()
    assert one.code == 3
    merged = fork_server.start(["convert", "out-*.parquet", "merged.parquet"], tmp_path).wait()
    assert merged.code == 0, merged.stderr
    for ending in ("", ".errors"):
        expected = (tmp_path / f"all.parquet{ending}").read_bytes()
        assert (tmp_path / f"merged.parquet{ending}").read_bytes() == expected


@pytest.mark.external
@pytest.mark.parametrize("launcher", ["torchrun", "accelerate"])
def test_launchers(images: Path, checkpoint: Path, tmp_path: Path, launcher: str) -> None:
    """The launchers themselves."""
    program = COMMAND.with_name(launcher)
    arguments = {
        "torchrun": ["--nproc-per-node", "2"],
        "accelerate": ["launch", "--multi_gpu", "--num_processes", "2"],
    }[launcher]
    command = ["-m", "blip2cli", "caption", images, "--model", checkpoint]
    done = subprocess.run(
        [program, *arguments, *command, "--shard", "auto", "-o", "out-{shard}.jsonl"],
        cwd=tmp_path,
        env=environment(tmp_path / "hf"),
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert sorted(path.name for path in tmp_path.glob("out-*.jsonl")) == [
        "out-1-of-2.jsonl",
        "out-2-of-2.jsonl",
    ]
