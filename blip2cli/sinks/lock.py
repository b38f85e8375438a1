"""Lock file of an output: one run at a time writes it.

The lock is the kernel's (``flock``), so it ends with its process however that ends, and the next
run can start at once. Kernel locks do not reach everywhere: on some file systems there are none, on
others each machine or each container has its own. So the file also says who holds it (see
``lock_holder``), and its holder touches it every few seconds as a sign of life. A file that a run
left behind is taken over when that run has ended for certain, or has given no sign for long.

The file is created complete, under a name that nothing has, and its content is never changed:
whatever else is found there, a link or a file of others, is refused and left.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import threading
import time
from typing import Self

from blip2cli.errors import OutputError
from blip2cli.sinks.lock_holder import GONE_SECONDS, SIGN_SECONDS, Holder, LockFile
from blip2cli.sinks.object_lock import ObjectLock
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage import durable
from blip2cli.storage.opening import is_remote
from blip2cli.storage.text_encoding import printable

# What a file system says that knows no locks; EBADF: not of files that are open for reading.
_NO_LOCKS = (errno.ENOLCK, errno.ENOTSUP, errno.EINVAL, errno.ENOSYS, errno.EBADF)


class OutputLock:
    """Held while entered. ``taken_from`` is the ended process whose lock was taken over, if any.

    Entering raises OutputError when another run holds the lock, when something else has its name,
    or when no file can be created beside the output.
    """

    def __init__(self, out: str, sign_seconds: float = SIGN_SECONDS) -> None:
        """``sign_seconds``: between two signs of life."""
        self._out = out
        self._sign_seconds = sign_seconds
        self._paths = OutputPaths.of(out)
        self._path = self._paths.lock
        self._descriptor = -1
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._show_life, daemon=True)
        self.taken_from: str | None = None

    def __enter__(self) -> Self:
        temporary = self._paths.temporary()
        try:
            self._descriptor = durable.create(temporary)
        except OSError as error:
            # Really creating a file also finds read-only file systems and full quotas, which the
            # permission bits do not tell.
            raise OutputError(
                "out",
                f"No file can be created in the folder of the output {self._out!r} "
                f"({error.strerror})",
                "choose another folder",
            ) from None
        try:
            self._take(temporary)
        except BaseException as error:
            os.close(self._descriptor)
            if isinstance(error, OSError):
                long = error.errno == errno.ENAMETOOLONG
                raise OutputError(
                    "out",
                    f"The lock of the output {self._out!r} cannot be taken ({error.strerror})",
                    f"choose {'a shorter name' if long else 'another folder'}",
                ) from None
            raise
        finally:
            durable.remove_quietly(temporary)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._thread.join()
        with contextlib.suppress(OSError):
            if os.path.samestat(os.fstat(self._descriptor), os.lstat(self._path)):
                os.unlink(self._path)  # before the lock ends: nobody can hold it yet
        with contextlib.suppress(OSError):  # ends the lock whatever it reports
            os.close(self._descriptor)

    def sweep(self) -> None:
        """Remove the temporary files of a killed run; only its holder may."""
        durable.remove_temporaries(self._paths.final)

    def _take(self, temporary: str) -> None:
        own = Holder.this_run(os.fstat(self._descriptor).st_dev, bool(_flock(self._descriptor)))
        # A lock without a name still locks; a full disk is reported when rows are written.
        with contextlib.suppress(OSError):
            durable.write_all(self._descriptor, own.as_bytes())
            os.fsync(self._descriptor)  # so that it is not empty after a power cut
        while True:
            try:
                durable.rename_to_new(temporary, self._path)
                return
            except FileExistsError:
                pass
            except FileNotFoundError:
                if os.path.lexists(temporary):
                    continue  # the lock that was there is released
                # Swept up by a run that has just taken the lock.
                problem = f"Another run has just begun to write {self._out!r}"
                raise OutputError("out", problem, "choose another name") from None
            with contextlib.suppress(FileNotFoundError):  # released meanwhile
                self._remove_abandoned(own)

    def _remove_abandoned(self, own: Holder) -> None:
        """Remove the lock that is there. Raises OutputError unless its run has ended."""
        found = self._open()
        try:
            kernel = _flock(found)
            try:
                lock = LockFile.read(found)
            except ValueError:
                raise self._foreign("is no lock of this tool") from None
            if kernel is False:
                raise self._refused(lock, own)
            self._check_ended(lock, found, own, bool(kernel))
            if not os.path.samestat(os.lstat(self._path), os.fstat(found)):
                return  # another run was quicker; look again
            # Without kernel locks it may be quicker still, and what is moved here is the new lock:
            # it is put back.
            moved = self._paths.temporary()
            os.rename(self._path, moved)
            if os.path.samestat(os.lstat(moved), os.fstat(found)):
                os.unlink(moved)
                self.taken_from = lock.name or None
            else:
                with contextlib.suppress(FileExistsError):
                    durable.rename_to_new(moved, self._path)
                durable.remove_quietly(moved)
        finally:
            os.close(found)

    def _open(self) -> int:
        """Open the lock that is there. Raises FileNotFoundError when it was released meanwhile."""
        try:
            try:
                return durable.open_regular(self._path)
            except PermissionError:  # of another user
                return durable.open_regular(self._path, os.O_RDONLY)
        except durable.NotRegularError as error:
            raise self._foreign(error.what) from None

    def _check_ended(self, lock: LockFile, found: int, own: Holder, kernel: bool) -> None:
        """Raise OutputError unless the run that left the lock has ended."""
        if lock.holder is None and lock.name:
            return  # of a version that gave no signs of life
        if lock.holder is not None:
            runs = lock.holder.runs(own, kernel)
        else:
            runs = False if kernel and own.on_local_disk else None
        if runs:
            raise self._refused(lock, own)
        if runs is None:
            sign = os.fstat(found).st_mtime
            # The clock is that of the file system: our own file was written there just now.
            age = os.fstat(self._descriptor).st_mtime - sign
            if age < GONE_SECONDS:
                left = GONE_SECONDS - age
                raise self._refused(
                    lock,
                    own,
                    f"; if it was killed, try again in {left:.0f} s or remove {self._path!r}",
                )
            # Clocks may differ where each machine sets the times. One more sign is waited for.
            time.sleep(2 * self._sign_seconds)
            again = self._open()  # which asks a server, not a cache
            try:
                if os.fstat(again).st_mtime != sign:
                    raise self._refused(lock, own)
            finally:
                os.close(again)

    def _refused(self, lock: LockFile, own: Holder, more: str = "") -> OutputError:
        since = printable(f", since {lock.holder.since} UTC") if lock.holder is not None else ""
        who = f" ({lock.name}{since})" if lock.name else ""
        here = lock.holder is not None and lock.holder.seen_by(own)
        end = f" or end it ('kill {lock.holder.process}')" if lock.holder and here else ""
        return OutputError(
            "out",
            f"Another run{who} is writing {self._out!r}",
            f"wait for its end{end}, or choose another name{more}",
        )

    def _foreign(self, what: str) -> OutputError:
        return OutputError(
            "out",
            f"{self._path!r}, where the lock of the output belongs, {what}",
            "move it away, or choose another name",
        )

    def _show_life(self) -> None:
        while not self._released.wait(self._sign_seconds):
            with contextlib.suppress(OSError):
                os.utime(self._descriptor)


def _flock(descriptor: int) -> bool | None:
    """Lock the open file: whether that went, None where there are no locks. Raises OSError."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise
        return None
    return True


def lock_of(out: str) -> OutputLock | ObjectLock:
    """The lock of the output ``out``, a path or a URL."""
    return ObjectLock(out) if is_remote(out) else OutputLock(out)
