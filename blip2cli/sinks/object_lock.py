"""Lock of an output on an object store: one run at a time writes it.

A store has no locks that end with their process. So a run puts an object that says who holds the
lock (see ``lock_holder``), and puts it again every few seconds as a sign of life. These objects are
numbered, and each is put exclusively: of two runs that want the next number one gets it. The
highest number holds the lock, until its run has released it, has ended for certain, or has given
no sign for long. Numbers are never given twice, so the object of the last run stays.

A run may have been stopped for so long that another has taken over. It finds the higher number
before it writes anything more (``check_held``). So does, at its start, a run that looked for the
last number so slowly that others have had the one behind it, and removed it. What two runs write
in between, they put exclusively, too: one of them gets each name, and the other ends.
"""

from __future__ import annotations

import contextlib
import errno
import threading
import time
from typing import Any, Self

from blip2cli.errors import OutputError
from blip2cli.sinks.lock_holder import Holder, LockFile
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage.object_requests import FIRST_PAUSES, ObjectFolder
from blip2cli.storage.remote_errors import RemoteError, RemoteMissingError
from blip2cli.storage.secrets import hide_secrets
from blip2cli.storage.text_encoding import printable

SIGN_SECONDS = 20.0  # between signs of life
GONE_SECONDS = 90.0  # without a sign for this long a run is taken for ended
CHECK_SECONDS = 5.0  # for so long the lock is taken for held after it was looked at

_RELEASED = b"released\n"
_held: dict[str, ObjectLock] = {}  # of this process, by the URLs of output and settings


class ObjectLock:
    """Held while entered. ``taken_from`` is the ended process whose lock was taken over, if any.

    Entering raises OutputError when another run holds the lock, or when the store cannot hold an
    output: objects cannot be written there, or not exclusively.
    """

    def __init__(self, out: str, gone_seconds: float = GONE_SECONDS) -> None:
        """``gone_seconds``: without a sign for this long another run is taken for ended."""
        self._gone_seconds = gone_seconds
        self._paths = OutputPaths.of(out)
        self._shown = hide_secrets(out)
        self._folder = ObjectFolder(self._paths.lock)
        self._holder = Holder.this_run()
        self._number = 0
        self._looked_at = 0.0  # on the monotonic clock
        self._released = threading.Event()
        self._thread = threading.Thread(target=self._show_life, daemon=True)
        self.taken_from: str | None = None
        self.memory: dict[str, Any] = {}  # what nobody else can change while it is held

    def __enter__(self) -> Self:
        try:
            self._take(ObjectFolder(self._paths.lock, FIRST_PAUSES))
        except RemoteMissingError:
            bucket = "/".join(self._paths.final.split("/")[:3])
            problem = f"There is no bucket {hide_secrets(bucket)!r}"
            raise OutputError("out", problem, "create it, or check the name") from None
        except (OutputError, RemoteError) as error:
            about = error.problem.replace(self._paths.lock, self._paths.final)
            raise OutputError("out", about, error.remedy) from None
        self._looked_at = time.monotonic()
        _held.update(dict.fromkeys((self._paths.final, self._paths.meta), self))
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._released.set()
        self._thread.join()
        for url in (self._paths.final, self._paths.meta):
            _held.pop(url, None)
        with contextlib.suppress(Exception):
            self._look()
            self._folder.replace(_name(self._number), _RELEASED)

    def sweep(self) -> None:
        """There are no temporary objects."""

    def check(self) -> None:
        """Raise OSError when another run has taken the lock over."""
        if time.monotonic() - self._looked_at >= CHECK_SECONDS:
            self._look()

    def _look(self) -> None:
        if self._is_passed(self._folder):
            raise OSError(errno.ESTALE, "another run has taken it over meanwhile")
        self._looked_at = time.monotonic()

    def _is_passed(self, folder: ObjectFolder) -> bool:
        """Whether another run has a higher number."""
        following = folder.exists(_name(self._number + 1))
        return following or max(_numbers(folder), default=0) > self._number

    def _take(self, folder: ObjectFolder) -> None:
        numbers = _numbers(folder)
        last = max(numbers, default=0)
        while not self._number:
            while folder.exists(_name(last + 1)):  # the listing may lag behind
                last += 1
            found = folder.read(_name(last)) if last else None
            if found and found != _RELEASED:
                self._check_ended(folder, found, last)
            if folder.create(_name(last + 1), self._holder.as_bytes()):
                self._number = last + 1
        if self._is_passed(folder):  # meanwhile others had this number, and removed it
            folder.remove(_name(self._number))
            raise OutputError(
                "out",
                f"Another run has just begun to write {self._shown!r}",
                "wait for its end, or choose another name",
            )
        folder.check_refused(_name(self._number))
        # One that may not be removed is found out now: there may be none with the last number.
        folder.remove(*map(_name, numbers), _name(0))

    def _check_ended(self, folder: ObjectFolder, found: bytes, number: int) -> None:
        """Raise OutputError unless the run that put the lock ``found`` has ended."""
        try:
            lock = LockFile.of(found)
        except ValueError:
            raise OutputError(
                "out",
                f"{folder.url_of(_name(number))!r}, where the lock of the output belongs, is "
                "no lock of this tool",
                "move it away, or choose another name",
            ) from None
        holder = lock.holder
        runs = holder.runs(self._holder, kernel=False) if holder is not None else None
        age = _age(folder, _name(number)) if runs is None else 0.0
        if runs is False or (runs is None and age >= self._gone_seconds):
            self.taken_from = lock.name or None
            return
        since = printable(f", since {holder.since} UTC") if holder is not None else ""
        retry = f"; if it was killed, try again in {self._gone_seconds - age:.0f} s"
        raise OutputError(
            "out",
            f"Another run ({lock.name}{since}) is writing {self._shown!r}",
            "wait for its end, or choose another name" + (retry if runs is None else ""),
        )

    def _show_life(self) -> None:
        while not self._released.wait(SIGN_SECONDS):
            with contextlib.suppress(Exception):  # the next one may be shown
                self._look()
                self._folder.replace(_name(self._number), self._holder.as_bytes())


def memory_of(url: str) -> dict[str, Any]:
    """Where to remember what is known of an output, by its URL or that of its settings: while this
    process holds its lock, what was read or written once is not asked for again."""
    lock = _held.get(url)
    return lock.memory if lock is not None else {}


def check_held(final: str) -> None:
    """Raise OSError when this process has held the lock of an output and holds it no longer."""
    lock = _held.get(final)
    if lock is not None:
        lock.check()


def _age(folder: ObjectFolder, name: str) -> float:
    """Seconds since an object was put, by the clock of the store."""
    folder.replace("clock", b"now\n")
    now, then = folder.modified("clock"), folder.modified(name)
    folder.remove("clock")
    return (now - then).total_seconds() if now is not None and then is not None else 0.0


def _numbers(folder: ObjectFolder) -> list[int]:
    return [int(name) for name in folder.names() if name.isdecimal()]


def _name(number: int) -> str:
    return f"{number:06d}"
