"""A file that grows while a run goes on, and whose place and size are watched.

Another program may move, delete or replace it, or write into it: a person who tidies up, a
synchronisation, a second run on a file system whose locks do not reach. That is noticed before
anything is added, ends the run, and loses no row.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable

from blip2cli.errors import RunError, option
from blip2cli.storage import durable

# What stores the settings of the file with this inode, which is renamed to its name in the body.
Settler = Callable[[int], contextlib.AbstractContextManager[object]]


# What NFS and FUSE call a deleted file that is still open.
_DELETED = (".nfs", ".fuse_hidden")


class AppendedFile:
    """A file that is open for appending; only this process is to write into it.

    ``end`` is its size in bytes. Methods raise RunError when it is not where or what this process
    left, and OSError.
    """

    def __init__(
        self, path: str, descriptor: int, settle: Settler = contextlib.nullcontext
    ) -> None:
        """``descriptor`` was opened with O_APPEND."""
        self.path = path
        self.descriptor = descriptor
        self._settle = settle
        about = os.fstat(descriptor)
        self.end = about.st_size
        self._same = about.st_dev, about.st_ino

    def append(self, data: bytes) -> None:
        """Write at the end, all or nothing."""
        self.check()
        try:
            durable.write_all(self.descriptor, data)
        except OSError:
            with contextlib.suppress(OSError):  # cut off a torn line
                os.ftruncate(self.descriptor, self.end)
            raise
        self.end += len(data)

    def check(self) -> None:
        """Raise RunError unless the file is in its place and as this process left it."""
        try:
            found = os.lstat(self.path)
        except (FileNotFoundError, NotADirectoryError):
            raise self._taken_away() from None
        if (found.st_dev, found.st_ino) != self._same:
            raise self._taken_away()
        # Not that of the name: FUSE may still have the size from before our last line.
        size = os.fstat(self.descriptor).st_size
        if size != self.end:
            raise RunError(
                None,
                f"Something else changed {self.path!r} while the run wrote it: it has "
                f"{size} bytes, not {self.end}",
                "nothing was added since; see that one program writes it, and go on with "
                f"{option('resume')}",
            )

    def sync(self) -> None:
        """Return when everything would survive a power cut."""
        os.fsync(self.descriptor)

    def close(self) -> None:
        """Close the file. Some network file systems report a full disk only here."""
        os.close(self.descriptor)

    def _taken_away(self) -> RunError:
        moved = self._moved_to()
        if moved is not None:
            return RunError(
                None,
                f"{self.path!r} was moved to {moved!r} while the run wrote it",
                f"its lines are safe there; move it back, and go on with {option('resume')}",
            )
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        try:
            self._copy_to(self.path, self._settle)
        except FileExistsError:
            saved = self._save_beside()
            return RunError(
                None,
                f"Another file took the place of {self.path!r} while the run wrote it",
                f"the lines of the run are in {saved!r}",
            )
        return RunError(
            None,
            f"{self.path!r} was deleted while the run wrote it, and was put back with all its "
            "lines so far",
            f"go on with {option('resume')}",
        )

    def _moved_to(self) -> str | None:
        """The present name of the file; None where it has none or the system does not tell."""
        with contextlib.suppress(OSError):
            name = os.readlink(f"/proc/self/fd/{self.descriptor}")
            deleted = os.path.basename(name).startswith(_DELETED)
            if not deleted and os.path.samestat(os.lstat(name), os.fstat(self.descriptor)):
                return name
        return None

    def _save_beside(self) -> str:
        """Copy the file to a free name beside its own, which no glob for results finds."""
        number = 1
        while True:
            saved = f"{self.path}.saved-{number}"
            with contextlib.suppress(FileExistsError):
                self._copy_to(saved)
                return saved
            number += 1

    def _copy_to(self, path: str, settle: Settler = contextlib.nullcontext) -> None:
        temporary = durable.temporary_name(path)
        descriptor = durable.create(temporary)
        try:
            with open(descriptor, "wb") as copy, open(os.dup(self.descriptor), "rb") as lines:
                lines.seek(0)
                shutil.copyfileobj(lines, copy, 1 << 20)
                copy.flush()
                os.fsync(descriptor)
                with settle(os.fstat(descriptor).st_ino):
                    durable.rename_into_place(temporary, path, replace=False)
        finally:
            durable.remove_quietly(temporary)
