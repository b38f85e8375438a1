"""What a lock file says of the run that holds it, and when that run is taken for ended."""

from __future__ import annotations

import dataclasses
import json
import operator
import os
import re
import socket
import time
from dataclasses import dataclass

from blip2cli.storage.text_encoding import printable, to_json
from blip2cli.system import processes

SIGN_SECONDS = 5.0  # between signs of life
# Without a sign for this long a run is taken for ended. Network file systems may show a change up
# to a minute late.
GONE_SECONDS = 90.0
_FORMER = re.compile(rb"(process \d+ on \S+)\n?")  # how version 0.1 signed


@dataclass(frozen=True)
class Holder:
    """A run, so that it is known again on another machine and in another container."""

    process: int
    host: str
    since: str  # in UTC
    boot: str
    namespace: str | None  # of process numbers
    started: int | None  # the start of the process, in ticks since the boot
    device: int  # of the lock file, as that machine numbers file systems
    kernel: bool  # it holds the kernel's lock too
    token: str  # of this lock, among all there are

    @classmethod
    def this_run(cls, device: int = 0, kernel: bool = False) -> Holder:
        """This process, holding a lock file on ``device``, or an object."""
        return cls(
            process=os.getpid(),
            host=socket.gethostname(),
            since=time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime()),
            boot=processes.boot_id(),
            namespace=processes.pid_namespace(),
            started=processes.start_time(os.getpid()),
            device=device,
            kernel=kernel,
            token=os.urandom(8).hex(),
        )

    def __str__(self) -> str:
        return printable(f"process {self.process} on {self.host}")

    def as_bytes(self) -> bytes:
        """The content of the lock file."""
        return to_json({"lock_of": "blip2cli", **dataclasses.asdict(self)}) + b"\n"

    def seen_by(self, own: Holder) -> bool:
        """Whether its process has the same number in the run ``own``."""
        here = self.namespace is not None and self.namespace == own.namespace
        return here and self.boot == own.boot

    @property
    def on_local_disk(self) -> bool:
        """Whether the lock is on a disk of this machine, which no other has mounted."""
        return os.major(self.device) != 0  # others, such as of networks, have no device

    def runs(self, own: Holder, kernel: bool) -> bool | None:
        """Whether the run goes on, seen from the run ``own``; None if only its signs of life tell.

        ``kernel``: the kernel has just granted the lock of the file to ``own``.
        """
        runs = processes.is_running(self.process, self.started) if self.seen_by(own) else None
        if runs is None and kernel and self.kernel:
            same_kernel = self.boot == own.boot and self.device == own.device
            if same_kernel or own.on_local_disk:
                return False  # both asked one kernel for the same file: the other let go of it
        return runs


@dataclass(frozen=True)
class LockFile:
    """The content of a lock file. ``name`` is empty for one without content."""

    holder: Holder | None
    name: str

    @classmethod
    def read(cls, descriptor: int) -> LockFile:
        """Raises ValueError for a file that is no lock."""
        return cls.of(os.pread(descriptor, 4096, 0))

    @classmethod
    def of(cls, data: bytes) -> LockFile:
        """The same for its content."""
        former = _FORMER.fullmatch(data)
        if former is not None or not data:
            return cls(None, former[1].decode() if former is not None else "")
        try:
            found = json.loads(data)
            if found.pop("lock_of") != "blip2cli" or not operator.index(found["process"]) > 0:
                raise ValueError
            holder = Holder(**found)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            raise ValueError("no lock") from None
        return cls(holder, str(holder))
