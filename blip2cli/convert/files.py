"""Outputs that appear complete or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from typing import BinaryIO

from blip2cli.errors import OutputError
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage import durable


class AtomicFile:
    """A file written under a hidden name beside its place."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self.path = path
        self._temporary = OutputPaths.of(path).temporary
        self.file: BinaryIO = open(self._temporary, "wb")  # noqa: SIM115 - closed below

    @property
    def inode(self) -> int:
        """What tells this file from an older one of its name; while it is not in its place."""
        return os.stat(self._temporary).st_ino

    def written(self) -> None:
        """Return when the content would survive a power cut; the file is closed."""
        if not self.file.closed:
            self.file.flush()
            os.fsync(self.file.fileno())
            self.file.close()

    def commit(self) -> None:
        """Put the file in its place."""
        self.written()
        durable.rename_into_place(self._temporary, OutputPaths.of(self.path).final)

    def abort(self) -> None:
        """Remove what was written, unless it is in its place."""
        with contextlib.suppress(OSError):
            self.file.close()
        durable.remove_quietly(self._temporary)


class AtomicFolder:
    """A folder that is filled under a hidden name, or in place when it is there already."""

    def __init__(self, path: str) -> None:
        self.path = os.path.realpath(path)
        self.new = not os.path.isdir(self.path)
        self.work = OutputPaths.of(path).temporary if self.new else self.path
        if self.new:
            shutil.rmtree(self.work, ignore_errors=True)
            os.mkdir(self.work)

    def place(self, name: str) -> str:
        """The path of ``name`` in the folder; the folders above it are made."""
        path = os.path.join(self.work, name)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        return path

    def commit(self) -> None:
        """Put a new folder in its place. Its files have been fsynced."""
        if not self.new:
            return
        for folder, _, _ in os.walk(self.work, topdown=False):
            durable.sync_folder(folder)
        durable.rename_into_place(self.work, self.path)
        self.new = False

    def abort(self) -> None:
        """Remove a new folder."""
        if self.new:
            shutil.rmtree(self.work, ignore_errors=True)


def check_folder(path: str, overwrite: bool, held: tuple[str, ...] = ()) -> None:
    """Raise OutputError when the folder ``path`` cannot be made or filled.

    ``held``: names that may not be there already; without them the folder has to be empty.
    """
    parent = os.path.dirname(os.path.realpath(path))
    if not os.path.isdir(parent):
        raise OutputError(f"The folder {parent!r} does not exist; create it (mkdir -p) first.")
    if not os.path.lexists(path) or overwrite:
        if os.path.lexists(path) and not os.path.isdir(path):
            raise OutputError(f"{path!r} is a file, not a folder; choose another name.")
        return
    if not os.path.isdir(path):
        raise OutputError(f"{path!r} is a file, not a folder; choose another name.")
    there = (
        [n for n in held if os.path.lexists(os.path.join(path, n))] if held else os.listdir(path)
    )
    if there:
        raise OutputError(
            f"The folder {path!r} holds {there[0]!r} already; add --overwrite to write into it all "
            "the same, or choose another name."
        )
