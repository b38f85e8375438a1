"""Outputs of a conversion that appear complete or not at all."""

from __future__ import annotations

import os

from blip2cli.errors import OutputError, option
from blip2cli.sinks.check_output import check_parent
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage import durable
from blip2cli.storage.atomic import AtomicFile, AtomicFolder


def new_file(path: str) -> AtomicFile:
    """The file ``path``, written under a hidden name beside it. Raises OSError.

    What a killed conversion left of it is removed: only who holds the lock may make one.
    """
    paths = OutputPaths.of(path)
    durable.remove_temporaries(paths.final)
    return AtomicFile(paths.temporary(), paths.final)


def new_folder(path: str) -> AtomicFolder:
    """The folder ``path``, filled under a hidden name beside it. Raises OSError."""
    return AtomicFolder(OutputPaths.of(path).final)


class OutputFolder:
    """A folder to fill: a new one under a hidden name, one that exists in place."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self._new = None if os.path.isdir(path) else new_folder(path)
        self.path = self._new.path if self._new is not None else os.path.realpath(path)
        self._inside: set[str] = set()  # folders that were looked at

    def file(self, name: str) -> str:
        """The path of the file ``name`` in the folder; the folders above it are created.

        Raises OutputError where a link leads out of the folder, OSError.
        """
        path = os.path.join(self.path, name)
        folder = os.path.dirname(path)
        if folder not in self._inside:
            os.makedirs(folder, exist_ok=True)
            if os.path.commonpath((os.path.realpath(folder), self.path)) != self.path:
                raise OutputError(
                    "destination",
                    f"{folder!r} leads out of the folder by a symbolic link",
                    "remove it, or choose another name",
                )
            self._inside.add(folder)
        return path

    def commit(self) -> None:
        """Put a new folder in its place. Its files have been fsynced."""
        if self._new is not None:
            self._new.commit()

    def abort(self) -> None:
        """Remove a new folder, unless it is in its place."""
        if self._new is not None:
            self._new.abort()


def check_folder(path: str, overwrite: bool, names: tuple[str, ...] = ()) -> None:
    """Raise OutputError when the folder ``path`` cannot be created or filled.

    Without ``overwrite`` it must not hold these ``names``, or anything at all if none are given.
    """
    check_parent(path, "destination")
    if not os.path.lexists(path):
        return
    if not os.path.isdir(path):
        raise OutputError("destination", f"{path!r} is a file, not a folder", "choose another name")
    if overwrite:
        return
    found = [name for name in names if os.path.lexists(os.path.join(path, name))]
    found = found if names else os.listdir(path)
    if found:
        raise OutputError(
            "destination",
            f"The folder {path!r} holds {found[0]!r} already",
            f"add {option('overwrite')} to write into it all the same, or choose another name",
        )
