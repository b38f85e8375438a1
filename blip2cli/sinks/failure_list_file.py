"""The file, or the object of a store, that lists the failed images of an output."""

from __future__ import annotations

import errno
import io
import os
import tempfile
from collections.abc import Iterable
from typing import BinaryIO

from blip2cli.sinks.object_lock import check_held
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage import durable
from blip2cli.storage.object_requests import ObjectFolder, split_url


def open_list(paths: OutputPaths) -> BinaryIO:
    """Open the list for reading. Raises FileNotFoundError without one, OSError."""
    if not paths.is_remote:
        return open(durable.open_regular(paths.errors, os.O_RDONLY), "rb")
    folder, name = split_url(paths.errors)
    data = folder.read(name)
    if data is None:
        raise FileNotFoundError(errno.ENOENT, "there is no list", paths.errors)
    return io.BytesIO(data)


def list_size(paths: OutputPaths) -> int:
    """Bytes of the list. Raises OSError."""
    with open_list(paths) as file:
        return file.seek(0, os.SEEK_END)


def exists(paths: OutputPaths) -> bool:
    """Whether something has the name of the list. Raises OSError."""
    if not paths.is_remote:
        return os.path.lexists(paths.errors)
    folder, name = split_url(paths.errors)
    return folder.exists(name)


def remove_list(paths: OutputPaths) -> None:
    """Remove the list, if there is one. Raises OSError."""
    if not paths.is_remote:
        durable.remove(paths.errors)
        return
    folder, name = split_url(paths.errors)
    check_held(paths.final)
    folder.remove(name)


def replace_list(paths: OutputPaths, lines: Iterable[bytes]) -> None:
    """Put a list of these lines in the place of the one that is there. Raises OSError."""
    if not paths.is_remote:
        with durable.written(paths.temporary(), paths.errors) as file:
            file.writelines(lines)
        return
    folder, name = split_url(paths.errors)
    check_held(paths.final)
    folder.replace(name, b"".join(lines))


class AppendedObject:
    """A list of failures on a store, where nothing is appended: it is put anew as a whole.

    Its lines wait in a temporary file of this machine. Lines that were not put when the process is
    killed are those of images that are tried again.
    """

    def __init__(self, paths: OutputPaths, content: bytes, new: bool) -> None:
        """Put the list with this content. ``new``: there must be none. Raises OSError."""
        self._final = paths.final
        self._folder: ObjectFolder
        self._folder, self._name = split_url(paths.errors)
        self._file = tempfile.TemporaryFile()  # noqa: SIM115 - closed by ``close``
        self._file.write(content)
        check_held(self._final)
        if not new:
            self._folder.replace(self._name, content)
        elif not self._folder.create(self._name, content):
            raise FileExistsError(errno.EEXIST, "something else was put there meanwhile")
        self._changed = False

    def append(self, line: bytes) -> None:
        """Add a line, which is put with the next ``sync``."""
        self._file.write(line)
        self._changed = True

    def check(self) -> None:
        """Raise OSError when another run has the output."""
        check_held(self._final)

    def sync(self) -> None:
        """Put the list."""
        if self._changed:
            self.check()
            self._file.seek(0)
            self._folder.replace(self._name, self._file.read())
            self._changed = False

    def close(self) -> None:
        """Give up the temporary file."""
        self._file.close()
