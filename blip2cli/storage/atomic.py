"""Files and folders that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import BinaryIO

from blip2cli.storage import durable


class AtomicFile:
    """A file that is written under a temporary name, and appears complete or not at all.

    Both names lie in the same folder. What is at ``final`` when this is made is replaced; what
    appears there later is not. Every method may raise OSError.
    """

    def __init__(self, temporary: str, final: str) -> None:
        self.temporary = temporary
        self._final = final
        self.replaces = os.path.lexists(final)  # something is there
        self.file: BinaryIO = open(durable.create(temporary), "wb")  # noqa: SIM115 - closed below

    @property
    def inode(self) -> int:
        """The inode number, which tells it from an older file of its name; before ``commit``."""
        return os.lstat(self.temporary).st_ino

    def sync(self) -> None:
        """Make the content last and close the file. Harmless when called again."""
        if not self.file.closed:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()

    def commit(self) -> None:
        """Put the file in its place, instead of an older one. Raises FileExistsError for one that
        appeared meanwhile."""
        self.sync()
        durable.rename_into_place(self.temporary, self._final, self.replaces)

    def abort(self) -> None:
        """Remove what was written, unless it is in its place."""
        with contextlib.suppress(OSError):
            self.file.close()
        durable.remove_quietly(self.temporary)


class AtomicFolder:
    """A folder that is filled under a temporary name, and appears complete or not at all.

    A folder cannot be renamed over a full one: an older folder at ``final`` is moved to another
    temporary name first and removed last. What killed processes left is removed, and an older
    folder that one had moved is put back; so only who holds the lock of ``final`` may make one.
    Every method may raise OSError.
    """

    def __init__(self, final: str) -> None:
        self.path = durable.temporary_name(final)  # the folder to fill
        self._final = final
        self._old = durable.temporary_name(final, "old")
        moved = [e.path for e in durable.temporaries_of(final) if e.name.endswith(".old")]
        if moved and not os.path.lexists(final):  # killed between two renames
            os.rename(moved[0], final)
        durable.remove_temporaries(final)
        self._replace = os.path.isdir(final)
        os.mkdir(self.path)

    def commit(self) -> None:
        """Put the folder in its place. Its files have been fsynced."""
        for folder, _, _ in os.walk(self.path, topdown=False):
            durable.sync_folder(folder)
        if self._replace:
            os.rename(self._final, self._old)
        try:
            # Only an empty folder can be there now; one with something in it raises OSError.
            durable.rename_into_place(self.path, self._final)
        except BaseException:
            if self._replace:
                os.rename(self._old, self._final)
            raise
        shutil.rmtree(self._old, ignore_errors=True)

    def abort(self) -> None:
        """Remove what was written, unless it is in its place."""
        shutil.rmtree(self.path, ignore_errors=True)
