"""Safe, durable, atomic writes: every file that is written is opened and put in its place here.

A crash or a power cut leaves the old content or the new, no mixture. The steps are those of
databases and package managers: write a temporary file, fsync it, rename it over the final name,
fsync the folder. Skipping any of them has lost data in practice (ALICE, OSDI 2014). A failed fsync
is final: the kernel may have dropped the data, so it is never retried.

Nothing of others is touched. A folder may hold links, pipes or devices under any name we use, by
accident or planted in an archive. So a file is created under a name that nothing has (``O_EXCL``),
opened only if it is a regular file and no link (``O_NOFOLLOW``), and put where something is already
only when the caller may replace it. Temporary names are random.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import shutil
import stat
from collections.abc import Iterator
from typing import BinaryIO

# What a file system says that knows no second names (hard links).
_NO_LINKS = (errno.EPERM, errno.ENOTSUP, errno.EMLINK, errno.ENOSYS, errno.EXDEV)
_LONGEST = 200  # bytes of a name in a temporary one; file systems allow 255, some 143
_TEMPORARY = r"\.[0-9a-f]{8}\.(?:tmp|old)"


def create(path: str, append: bool = False) -> int:
    """Create a file for reading and writing; permissions as the user's umask says.

    Raises FileExistsError for anything that has the name already, links among it.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | (os.O_APPEND if append else 0)
    return os.open(path, flags, 0o666)


class NotRegularError(OSError):
    """A link, a pipe, a device or a folder is where a file is to be opened."""

    def __init__(self, path: str) -> None:
        what = "a symbolic link" if os.path.islink(path) else "no regular file"
        super().__init__(errno.EINVAL, f"is {what}", path)
        self.what = f"is {what}"


def open_regular(path: str, flags: int = os.O_RDWR) -> int:
    """Open a file that exists. Raises NotRegularError, OSError."""
    try:
        # O_NONBLOCK: opening a pipe would wait for its other end.
        descriptor = os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        if error.errno in (errno.ELOOP, errno.EMLINK, errno.ENXIO, errno.EISDIR):
            raise NotRegularError(path) from None
        raise
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise NotRegularError(path)
    return descriptor


def temporary_name(path: str, ending: str = "tmp") -> str:
    """A new, hidden name beside ``path`` that nobody can foresee. A long name is cut short."""
    folder, name = os.path.split(path)
    name = os.fsdecode(os.fsencode(name)[:_LONGEST])
    return os.path.join(folder, f".{name}.{os.urandom(4).hex()}.{ending}")


def temporaries_of(path: str) -> list[os.DirEntry[str]]:
    """The files and folders with a ``temporary_name`` of ``path``; no links. Raises OSError."""
    folder, name = os.path.split(path)
    pattern = re.compile(rf"\.{re.escape(name)}{_TEMPORARY}", re.DOTALL)
    with os.scandir(folder or ".") as scan:
        return [e for e in scan if pattern.fullmatch(e.name) and not e.is_symlink()]


def remove_temporaries(path: str) -> None:
    """Remove what killed processes left of ``path``; only who holds its lock may.

    A former folder that was moved away stays while there is no new one (see ``AtomicFolder``).
    """
    with contextlib.suppress(OSError):
        for entry in temporaries_of(path):
            if entry.name.endswith(".old") and not os.path.lexists(path):
                continue
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path, ignore_errors=True)
            elif entry.is_file(follow_symlinks=False):
                remove_quietly(entry.path)


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything; one ``os.write`` may stop early when the disk gets full."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


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


def rename_into_place(temporary: str, final: str, replace: bool = True) -> None:
    """Put a temporary file or folder, whose content was fsynced, at ``final`` beside it.

    Without ``replace``, which files only can do, FileExistsError is raised for anything that is
    there, and the temporary file stays.
    """
    if replace:
        os.replace(temporary, final)
    else:
        rename_to_new(temporary, final)
    sync_folder(os.path.dirname(final))


def rename_to_new(temporary: str, final: str) -> None:
    """Rename to a name that nothing has; there is no moment between a look and the rename."""
    try:
        os.link(temporary, final)
    except OSError as error:
        # A server whose answer was lost is asked again, and finds its own link there.
        linked = error.errno == errno.EEXIST and os.path.samestat(
            os.lstat(temporary), os.lstat(final)
        )
        if error.errno in _NO_LINKS:
            os.close(create(final))  # claims the name
            os.replace(temporary, final)
            return
        if not linked:
            raise
    os.unlink(temporary)


def replace_file(
    temporary: str, final: str, data: bytes, sync: bool = True, replace: bool = True
) -> None:
    """Create or replace ``final`` with ``data`` in one step.

    Without ``sync`` the folder is not fsynced: a caller with many files does that once. Without
    ``replace`` FileExistsError is raised for anything that is there.
    """
    descriptor = create(temporary)
    try:
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if replace:
            os.replace(temporary, final)
        else:
            rename_to_new(temporary, final)
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

    Where the file system knows no second names the file is copied. Raises FileExistsError.
    """
    try:
        os.link(path, other)
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        copy_file(path, temporary, other)
        return
    sync_folder(os.path.dirname(other))


def copy_file(path: str, temporary: str, other: str) -> None:
    """Copy ``path`` to the name ``other``, which nothing has, in one step. Raises OSError."""
    with open(path, "rb") as source, written(temporary, other, replace=False) as copy:
        shutil.copyfileobj(source, copy, 1 << 20)


@contextlib.contextmanager
def written(temporary: str, final: str, replace: bool = True) -> Iterator[BinaryIO]:
    """Yield a file that is put at ``final`` in the end, lastingly; see ``rename_into_place``."""
    descriptor = create(temporary)
    try:
        with open(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        rename_into_place(temporary, final, replace)
    except BaseException:
        remove_quietly(temporary)
        raise


def remove_quietly(path: str) -> None:
    """Remove a file if that is possible; for cleaning up after a failure."""
    with contextlib.suppress(OSError):
        os.unlink(path)
