"""Durable, atomic writes: a crash or a power cut leaves the old content or the new, no mixture.

The steps are those of databases and package managers: write a temporary file, fsync it, rename it
over the final name, fsync the folder. Skipping any of them has lost data in practice (ALICE,
OSDI 2014). A failed fsync is final: the kernel may have dropped the data, so it is never retried.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
from typing import BinaryIO


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything; one ``os.write`` may stop early when the disk gets full."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def open_new(path: str) -> int:
    """Open for writing, emptied; permissions as the user's umask says."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)


def sync_file(path: str) -> None:
    """Make the content of a closed file last."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sync_folder(folder: str) -> None:
    """Make renames and removals in ``folder`` last."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot do it for folders; they order renames themselves.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def rename_into_place(temporary: str, final: str) -> None:
    """Replace ``final`` by a temporary file or folder beside it whose content was fsynced."""
    os.replace(temporary, final)
    sync_folder(os.path.dirname(final))


def replace_file(temporary: str, final: str, data: bytes, sync: bool = True) -> None:
    """Create or replace ``final`` with ``data`` in one step.

    Without ``sync`` the folder is not fsynced: a caller with many files does that once.
    """
    try:
        descriptor = open_new(temporary)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        os.replace(temporary, final)
        if sync:
            sync_folder(os.path.dirname(final))
    except BaseException:
        remove_quietly(temporary)
        raise


def remove(*paths: str) -> None:
    """Remove those of the files that exist, lastingly. All lie in the same folder.

    The order in which a power cut may find them removed is not defined.
    """
    removed = False
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
            removed = True
    if removed:
        sync_folder(os.path.dirname(paths[0]))


def link(path: str, other: str, temporary: str) -> None:
    """Give the file ``path`` the second name ``other``, lastingly.

    Where the file system knows no second names the file is copied.
    """
    try:
        os.link(path, other)
    except FileExistsError:
        raise
    except OSError as error:
        if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS):
            raise
        with open(path, "rb") as source, open(temporary, "wb") as copy:
            shutil.copyfileobj(source, copy, 1 << 20)
            copy.flush()
            os.fsync(copy.fileno())
        os.replace(temporary, other)
    sync_folder(os.path.dirname(other))


def remove_quietly(path: str) -> None:
    """Remove a file if that is possible; for cleaning up after a failure."""
    with contextlib.suppress(OSError):
        os.unlink(path)


class AtomicFile:
    """A file that is written under a temporary name, and appears complete or not at all.

    Both names lie in the same folder. Every method may raise OSError.
    """

    def __init__(self, temporary: str, final: str) -> None:
        self._temporary = temporary
        self._final = final
        self.file: BinaryIO = open(temporary, "wb")  # noqa: SIM115 - closed below

    @property
    def inode(self) -> int:
        """The inode number, which tells it from an older file of its name; before ``commit``."""
        return os.stat(self._temporary).st_ino

    def sync(self) -> None:
        """Make the content last and close the file. Harmless when called again."""
        if not self.file.closed:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()

    def commit(self) -> None:
        """Put the file in its place, instead of an older one."""
        self.sync()
        rename_into_place(self._temporary, self._final)

    def abort(self) -> None:
        """Remove what was written, unless it is in its place."""
        with contextlib.suppress(OSError):
            self.file.close()
        remove_quietly(self._temporary)


class AtomicFolder:
    """A folder that is filled under a temporary name, and appears complete or not at all.

    A folder cannot be renamed over a full one: an older folder at ``final`` is moved to ``old``
    first and removed last. What a killed process left at ``temporary`` is removed, and an older
    folder that it left at ``old`` is put back. All three names lie in the same folder. Every
    method may raise OSError.
    """

    def __init__(self, temporary: str, final: str, old: str) -> None:
        self.path = temporary  # the folder to fill
        self._final = final
        self._old = old
        if os.path.isdir(old) and not os.path.lexists(final):  # killed between two renames
            os.rename(old, final)
        for left in (temporary, old):
            shutil.rmtree(left, ignore_errors=True)
        os.mkdir(temporary)

    def commit(self) -> None:
        """Put the folder in its place. Its files have been fsynced."""
        for folder, _, _ in os.walk(self.path, topdown=False):
            sync_folder(folder)
        if os.path.isdir(self._final):
            os.rename(self._final, self._old)
        try:
            rename_into_place(self.path, self._final)
        except BaseException:
            if os.path.isdir(self._old):
                os.rename(self._old, self._final)
            raise
        shutil.rmtree(self._old, ignore_errors=True)

    def abort(self) -> None:
        """Remove what was written, unless it is in its place."""
        shutil.rmtree(self.path, ignore_errors=True)
