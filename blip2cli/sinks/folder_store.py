"""Where the files of a folder output are kept: the few operations that writing and reading need.

A folder output has two kinds of files (see ``folder_layout`` for their names): visible parts, which
lie in the folder, and hidden ones. On the local disk those lie beside the folder: readers such as
Polars take every file in a folder for a part of the table, hidden or not.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from contextlib import AbstractContextManager
from typing import Any, BinaryIO, Protocol

from blip2cli.sinks.folder_layout import HIDDEN, VISIBLE
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage import durable


class FolderStore(Protocol):
    """The files of one folder output. All methods raise OSError.

    A file appears complete and lastingly, in one step, or not at all; it is never changed, only
    replaced as a whole.
    """

    def sizes(self) -> dict[str, int]:
        """The bytes of every file whose name is one of ours, by name. Others are not listed."""

    def missing(self, names: list[str]) -> str | None:
        """The first of ``names`` that is no longer there; None where all are."""

    def source(self, name: str) -> Any:
        """The file for ``pyarrow.parquet.ParquetFile``: a path, or an open file that seeks."""

    def prepare(self) -> None:
        """Create the place where visible files go, if it is not there."""

    def create(self, name: str, replace: bool = False) -> AbstractContextManager[BinaryIO]:
        """A file to write, which appears when the body ends, or not at all when it raises.

        Raises FileExistsError, unless ``replace``, for a file that is there then.
        """

    def remove(self, names: list[str]) -> None:
        """Remove those of the files that exist, lastingly when it returns, the last one first.

        All are visible, or all hidden.
        """

    def shown(self, name: str) -> str:
        """The path or the URL of a file, for messages."""


class LocalFolder:
    """A ``FolderStore`` on the local disk."""

    def __init__(self, paths: OutputPaths) -> None:
        self._paths = paths
        self._folder = paths.final

    def sizes(self) -> dict[str, int]:
        # A file without bytes is a name that was claimed before a crash (see ``rename_to_new``).
        return {name: size for name, size in self._files() if size}

    def missing(self, names: list[str]) -> str | None:
        return next((name for name in names if not os.path.lexists(self.shown(name))), None)

    def source(self, name: str) -> str:
        return self.shown(name)

    def footer_digest(self, name: str) -> str:
        """A digest of the footer of a Parquet file."""
        with open(self.shown(name), "rb") as file:
            file.seek(-8, os.SEEK_END)
            length = int.from_bytes(file.read(4), "little")  # of the footer; "PAR1" follows
            file.seek(-min(file.seek(0, os.SEEK_END), 8 + length), os.SEEK_END)
            return hashlib.sha256(file.read()).hexdigest()

    def prepare(self) -> None:
        if not os.path.isdir(self._folder):
            os.mkdir(self._folder)
            durable.sync_folder(self._paths.folder)

    @contextlib.contextmanager
    def create(self, name: str, replace: bool = False) -> Iterator[BinaryIO]:
        path = self.shown(name)
        with contextlib.suppress(FileNotFoundError):
            replace = replace or not os.lstat(path).st_size
        with durable.written(self._paths.temporary(), path, replace) as file:
            yield file
        if path != self._paths.hidden(f".{name}"):
            durable.sync_folder(self._paths.folder)  # where the temporary name was

    def remove(self, names: list[str]) -> None:
        durable.remove(*map(self.shown, reversed(names)))

    def shown(self, name: str) -> str:
        if HIDDEN.fullmatch(name):
            return self._paths.hidden(f".{name}")
        return os.path.join(self._folder, name)

    def _files(self) -> Iterator[tuple[str, int]]:
        with contextlib.suppress(FileNotFoundError), os.scandir(self._folder) as scan:
            for entry in scan:
                if VISIBLE.fullmatch(entry.name) and entry.is_file(follow_symlinks=False):
                    yield entry.name, entry.stat().st_size
        prefix = os.path.basename(self._paths.hidden("."))
        with os.scandir(self._paths.folder) as scan:
            for entry in scan:
                name = entry.name.removeprefix(prefix)
                if name != entry.name and HIDDEN.fullmatch(name) and entry.is_file():
                    yield name, entry.stat(follow_symlinks=False).st_size


def open_store(paths: OutputPaths) -> FolderStore:
    """The store of a folder output."""
    if paths.is_remote:
        from blip2cli.sinks.object_lock import memory_of
        from blip2cli.sinks.object_store import ObjectStore

        store: FolderStore = memory_of(paths.final).setdefault("store", ObjectStore(paths))
        return store
    return LocalFolder(paths)
