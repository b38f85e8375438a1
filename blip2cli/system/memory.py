"""Memory of the machine and the share that this process may use (cgroup limits)."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from blip2cli.system.cores import cgroup_folders

# Version 1 writes "no limit" as the largest multiple of the page size below 2^63.
_NO_LIMIT = 1 << 62
# What exceptions say that have no class of their own: torch's allocator on CPUs, Apple's,
# and the libraries that allocate for themselves (cuBLAS, cuDNN, oneDNN, the C++ library).
_MESSAGES = (
    "out of memory",
    "can't allocate memory",
    "Cannot allocate memory",
    "not enough memory",
    "_ALLOC_FAILED",
    "could not create a memory object",
    "bad_alloc",
)


@dataclass(frozen=True)
class Memory:
    """In bytes; None where the system does not report it."""

    total: int | None
    available: int | None  # without swapping, within the limit
    limit: int | None  # the tightest limit of a cgroup (container, job) around this process


def memory(root: Path = Path("/")) -> Memory:
    """Read the present state; ``root`` stands for the file system with ``proc`` and ``sys``."""
    lines = _lines(root / "proc/meminfo")
    total, available = lines.get("MemTotal"), lines.get("MemAvailable")
    if total is None:
        total = _sysconf()
    groups = list(_groups(root))
    limit = min((most for most, _ in groups), default=None)
    for most, used in groups:
        if available is None or most - used < available:
            available = max(0, most - used)
    return Memory(total, available, limit)


def is_exhaustion(error: BaseException) -> bool:
    """True for an exception that says there is not enough memory, on the host or a device."""
    import torch

    if isinstance(error, (MemoryError, torch.OutOfMemoryError)):
        return True
    if isinstance(error, OSError):
        return error.errno == errno.ENOMEM
    return isinstance(error, RuntimeError) and any(text in str(error) for text in _MESSAGES)


def _lines(file: Path) -> dict[str, int]:
    """``MemTotal:  16310916 kB`` and its like, in bytes."""
    try:
        text = file.read_text("ascii")
    except (OSError, UnicodeDecodeError):
        return {}
    found = {}
    for line in text.splitlines():
        name, _, rest = line.partition(":")
        number, _, unit = rest.strip().partition(" ")
        if number.isdigit() and unit == "kB":
            found[name] = int(number) * 1024
    return found


def _sysconf() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, OSError, ValueError):
        return None


def _groups(root: Path) -> Iterator[tuple[int, int]]:
    """Limit and present use, in bytes, of every cgroup around this process that has a limit."""
    for folder in cgroup_folders(root, "memory"):
        for limit, usage in (
            ("memory.max", "memory.current"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes"),
        ):
            most = _number(folder / limit)
            if most is not None and most < _NO_LIMIT:
                yield most, _number(folder / usage) or 0


def _number(file: Path) -> int | None:
    try:
        return int(file.read_text("ascii"))
    except (OSError, ValueError):  # "max": no limit
        return None
