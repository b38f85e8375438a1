"""Writing so that a crash or a power cut leaves the old content or the new, never a mixture.

The steps are those of databases and package managers: write a temporary file, fsync it, rename it
over the final name, fsync the folder. Skipping any of them has lost data in practice (ALICE,
OSDI 2014). A failed fsync is final: the kernel may have dropped the data, so it is never retried.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil


def write_all(descriptor: int, data: bytes) -> None:
    """Write everything; ``os.write`` alone may stop early when the disk gets full."""
    view = memoryview(data)
    while view:
        view = view[os.write(descriptor, view) :]


def open_new(path: str) -> int:
    """Open for writing, emptied; permissions as the user's umask says."""
    return os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)


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
    """Replace ``final`` by a temporary file beside it whose content was fsynced."""
    os.replace(temporary, final)
    sync_folder(os.path.dirname(final))


def write_file(temporary: str, final: str, data: bytes) -> None:
    """Create or replace ``final`` with ``data`` in one step."""
    try:
        descriptor = open_new(temporary)
        try:
            write_all(descriptor, data)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        rename_into_place(temporary, final)
    except BaseException:
        remove_quietly(temporary)
        raise


def remove(*paths: str) -> None:
    """Remove those of the files that exist, lastingly. All lie in the same folder.

    The order in which a power cut may find them removed is not said.
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
    """Remove a file if that can be done; for tidying up after a failure."""
    with contextlib.suppress(OSError):
        os.unlink(path)
