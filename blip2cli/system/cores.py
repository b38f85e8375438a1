"""Processor cores that this process may use.

``os.cpu_count`` counts the machine; containers and job schedulers allow less, through the
scheduling affinity or through a cgroup's CPU quota.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePosixPath


def available_cores(root: Path = Path("/")) -> int:
    """Return the number of usable cores, at least 1.

    ``root`` stands for the file system that holds ``proc`` and ``sys``. A fractional quota is
    rounded up: 1.5 cores keep two processes busy.
    """
    if hasattr(os, "sched_getaffinity"):
        cores = len(os.sched_getaffinity(0))
    else:  # macOS, Windows
        cores = os.cpu_count() or 1
    quota = min(_quotas(root), default=math.inf)
    return max(1, min(cores, math.ceil(quota) if math.isfinite(quota) else cores))


def _quotas(root: Path) -> Iterator[float]:
    """Yield every CPU quota above this process, in cores, for cgroup versions 1 and 2."""
    for folder in cgroup_folders(root, "cpu"):
        v1 = f"{_read(folder / 'cpu.cfs_quota_us')} {_read(folder / 'cpu.cfs_period_us')}"
        for numbers in (_read(folder / "cpu.max") or "", v1):
            try:
                quota, period = map(int, numbers.split())
                share = quota / period
            except (ValueError, ZeroDivisionError):  # no such file, or "max": no limit
                continue
            if share > 0:  # version 1 writes -1 for "no limit"
                yield share


def cgroup_folders(root: Path, controller: str) -> Iterator[Path]:
    """Yield the folder of every cgroup whose ``controller`` may limit this process (cgroups(7)).

    A parent's limit binds its children. Inside a container the path in /proc may be one that is
    only visible outside; then the mount itself, which comes last, is the container's group.
    """
    for line in (_read(root / "proc/self/cgroup") or "").splitlines():
        fields = line.split(":", 2)
        if len(fields) != 3 or ".." in fields[2]:
            continue
        hierarchy, controllers, group = fields
        if hierarchy == "0":  # version 2
            mount = root / "sys/fs/cgroup"
        elif controller in controllers.split(","):
            mount = root / "sys/fs/cgroup" / controllers
            if not mount.is_dir():
                mount = root / "sys/fs/cgroup" / controller
        else:
            continue
        relative = PurePosixPath(group.lstrip("/"))
        yield from (mount / folder for folder in (relative, *relative.parents))


def _read(path: Path) -> str | None:
    try:
        return path.read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        return None
