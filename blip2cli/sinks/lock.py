"""Lock file of an output: one run at a time writes it.

The lock is the kernel's (``flock``), so it ends with its process however that ends; the file names
its holder for people. A lock file that nobody holds was left by a killed process: it is taken over.
On a file system without locks, the process named in the file is looked for.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
from typing import Self

from blip2cli.errors import OutputError
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage import durable


class OutputLock:
    """Held while entered. ``taken_from`` is the dead process whose lock was taken over, if any.

    Entering raises OutputError when another run holds the lock, or when no file can be created
    beside the output.
    """

    def __init__(self, out: str) -> None:
        self._out = out
        self._paths = OutputPaths.of(out)
        self._path = self._paths.lock
        self._descriptor: int | None = None
        self.taken_from: str | None = None

    def __enter__(self) -> Self:
        while self._descriptor is None:
            descriptor = self._open()
            try:
                if self._is_mine(descriptor):
                    self._descriptor = descriptor
            except OSError as error:
                raise OutputError(
                    "out",
                    f"The lock of the output {self._out!r} cannot be taken ({error.strerror})",
                    "choose another folder",
                ) from None
            finally:
                if self._descriptor is None:
                    os.close(descriptor)
        return self

    def __exit__(self, *_: object) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            durable.remove_quietly(self._path)  # before the lock ends: nobody can hold it yet
            with contextlib.suppress(OSError):  # ends the lock whatever it reports
                os.close(descriptor)

    def sweep(self) -> None:
        """Remove the temporary files of a killed run; only its holder may."""
        durable.remove_temporaries(self._paths.final)

    def _open(self) -> int:
        try:
            return os.open(self._path, os.O_RDWR | os.O_CREAT, 0o666)
        except OSError as error:
            # Really creating a file also finds read-only file systems and full quotas, which the
            # permission bits do not tell.
            raise OutputError(
                "out",
                f"No file can be created in the folder of the output {self._out!r} "
                f"({error.strerror})",
                "choose another folder",
            ) from None

    def _is_mine(self, descriptor: int) -> bool:
        """Lock the open file; False when it was removed meanwhile and must be created again."""
        held = self._flock(descriptor)
        holder = os.pread(descriptor, 200, 0).decode("ascii", "replace").strip()
        if not held:
            raise OutputError(
                "out",
                f"Another run{f' ({holder})' if holder else ''} is writing {self._out!r}",
                "wait for its end, or choose another name",
            )
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(descriptor), os.stat(self._path)):
                self.taken_from = holder or None
                # A lock without a name still locks; a full disk is reported when rows are written.
                with contextlib.suppress(OSError):
                    os.ftruncate(descriptor, 0)
                    name = f"process {os.getpid()} on {socket.gethostname()}\n"
                    os.pwrite(descriptor, name.encode(), 0)
                return True
        return False

    def _flock(self, descriptor: int) -> bool:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS):
                raise
            return not _may_run(os.pread(descriptor, 200, 0).decode("ascii", "replace"))
        return True


def _may_run(holder: str) -> bool:
    """Whether the holder named in a lock may still run; on another machine it may."""
    words = holder.split()
    if len(words) != 4 or not words[1].isdecimal():
        return False
    if words[3] != socket.gethostname():
        return True
    try:
        os.kill(int(words[1]), 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
