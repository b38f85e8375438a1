from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from blip2cli.images.worker_pool import MAX_WORKERS, choose_workers
from blip2cli.system.cores import available_cores


@pytest.fixture(autouse=True)
def sixty_four_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(64)))


def write(root: Path, contents: dict[str, str]) -> Path:
    for name, text in contents.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text + "\n")
    return root


def test_without_any_limit(tmp_path: Path) -> None:
    assert available_cores(tmp_path) == 64


@pytest.mark.parametrize(
    ("limit", "cores"),
    [("400000 100000", 4), ("150000 100000", 2), ("5000 100000", 1), ("max 100000", 64), ("?", 64)],
)
def test_version_2_in_a_container(tmp_path: Path, limit: str, cores: int) -> None:
    write(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": limit})
    assert available_cores(tmp_path) == cores


def test_version_2_takes_the_tightest_group_above(tmp_path: Path) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "0::/jobs/one/task",
            "sys/fs/cgroup/jobs/cpu.max": "300000 100000",
            "sys/fs/cgroup/jobs/one/cpu.max": "800000 100000",
            "sys/fs/cgroup/jobs/one/task/cpu.max": "max 100000",
        },
    )
    assert available_cores(tmp_path) == 3


@pytest.mark.parametrize("mount", ["cpu,cpuacct", "cpu"])
def test_version_1(tmp_path: Path, mount: str) -> None:
    write(
        tmp_path,
        {
            "proc/self/cgroup": "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc",
            f"sys/fs/cgroup/{mount}/cpu.cfs_quota_us": "250000",
            f"sys/fs/cgroup/{mount}/cpu.cfs_period_us": "100000",
            f"sys/fs/cgroup/{mount}/docker/abc/cpu.cfs_quota_us": "-1",
            f"sys/fs/cgroup/{mount}/docker/abc/cpu.cfs_period_us": "100000",
        },
    )
    assert available_cores(tmp_path) == 3


def test_affinity_binds_where_the_quota_does_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {3, 5})
    write(tmp_path, {"proc/self/cgroup": "0::/", "sys/fs/cgroup/cpu.max": "1600000 100000"})
    assert available_cores(tmp_path) == 2


def test_a_real_process_bound_to_one_core() -> None:
    code = (
        "import os; os.sched_setaffinity(0, {min(os.sched_getaffinity(0))});"
        "from blip2cli.system.cores import available_cores; print(available_cores())"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "1"


def test_workers_leave_a_core_to_the_main_process() -> None:
    assert [choose_workers(cores) for cores in (1, 2, 4, 64)] == [0, 1, 3, MAX_WORKERS]
