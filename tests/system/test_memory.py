"""Memory, as the system and its cgroups tell it."""

from __future__ import annotations

from pathlib import Path

from blip2cli.system.memory import Memory, memory

GIB = 1 << 30


def system(root: Path, cgroup: str, **files: str) -> Path:
    (root / "proc/self").mkdir(parents=True)
    kib = 1 << 20
    (root / "proc/meminfo").write_text(
        f"MemTotal:       {16 * kib} kB\nMemFree:  1 kB\nMemAvailable:   {8 * kib} kB\n"
        "HugePages_Total:       0\n"
    )
    (root / "proc/self/cgroup").write_text(cgroup)
    for name, content in files.items():
        path = root / "sys/fs/cgroup" / name.replace("__", "/").replace("_DOT_", ".")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    return root


def test_without_a_limit_the_system_tells(tmp_path: Path) -> None:
    root = system(tmp_path, "0::/\n", memory_DOT_max="max\n")
    assert memory(root) == Memory(16 * GIB, 8 * GIB, None)


def test_the_tightest_limit_of_version_2_counts(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        "0::/jobs/mine\n",
        jobs__memory_DOT_max=f"{4 * GIB}\n",
        jobs__memory_DOT_current=f"{3 * GIB}\n",
        jobs__mine__memory_DOT_max=f"{6 * GIB}\n",
        jobs__mine__memory_DOT_current=f"{1 * GIB}\n",
    )
    assert memory(root) == Memory(16 * GIB, 1 * GIB, 4 * GIB)


def test_a_limit_of_version_1_counts_and_its_largest_number_is_none(tmp_path: Path) -> None:
    root = system(
        tmp_path,
        "4:memory:/job\n",
        memory__job__memory_DOT_limit_in_bytes=f"{2 * GIB}\n",
        memory__job__memory_DOT_usage_in_bytes=f"{3 * GIB}\n",
        memory__memory_DOT_limit_in_bytes="9223372036854771712\n",
    )
    assert memory(root) == Memory(16 * GIB, 0, 2 * GIB)


def test_where_the_system_tells_nothing_little_is_known(tmp_path: Path) -> None:
    found = memory(tmp_path)
    assert (found.available, found.limit) == (None, None)
    assert found.total is None or found.total > 0


def test_this_machine_has_memory() -> None:
    found = memory()
    assert found.total
    assert found.available is None or 0 <= found.available <= found.total
