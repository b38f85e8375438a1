"""A directory that appears complete or not at all."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from blip2cli.errors import OutputError
from blip2cli.sinks.base import disk_errors
from blip2cli.sinks.lock import OutputLock
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage.durable import rename_into_place, sync_folder

_SAFE = "nothing that was there was changed"


def check_destination(out: str, overwrite: bool, folder: bool) -> None:
    """Raise OutputError for what is there and may not be replaced."""
    path = Path(out)
    parent = Path(os.path.realpath(out)).parent
    if not parent.is_dir():
        raise OutputError(
            f"The folder {str(parent)!r} for the output does not exist; create it (mkdir -p) first."
        )
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise OutputError(
            f"The output {out!r} exists already; add --overwrite to replace it, or choose another "
            "name."
        )
    if not folder:
        if not path.is_file():
            raise OutputError(f"The output {out!r} is not a regular file; choose another name.")
    elif not path.is_dir() or (any(path.iterdir()) and not (path / "config.json").is_file()):
        raise OutputError(
            f"The output {out!r} is no directory with a model (config.json), and is not replaced; "
            "choose another name."
        )


def check_space(out: str, size: int) -> None:
    """Raise OutputError when the disk has no room for ``size`` bytes."""
    free = shutil.disk_usage(Path(os.path.realpath(out)).parent).free
    if free < size:
        raise OutputError(
            f"The output {out!r} takes {size / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB "
            "left; make room, or choose another disk."
        )


@contextmanager
def new_folder(out: str) -> Iterator[Path]:
    """Yield an empty directory that becomes ``out`` in the end, in place of what is there.

    Raises OutputError when another run writes ``out``, RunError when the disk fails.
    """
    paths = OutputPaths.of(out)
    with OutputLock(out), disk_errors(out, _SAFE):
        temporary, old = Path(paths.temporary), Path(paths.hidden(".old"))
        if old.is_dir() and not os.path.lexists(paths.final):  # killed between two renames
            os.rename(old, paths.final)
        for left in (temporary, old):  # by a killed run
            shutil.rmtree(left, ignore_errors=True)
        try:
            temporary.mkdir()
            yield temporary
            for file in temporary.iterdir():
                _sync(file)
            sync_folder(str(temporary))
            if os.path.isdir(paths.final):
                os.rename(paths.final, old)
            try:
                rename_into_place(str(temporary), paths.final)
            except BaseException:
                if old.is_dir():
                    os.rename(old, paths.final)
                raise
        except BaseException:
            shutil.rmtree(temporary, ignore_errors=True)
            raise
        shutil.rmtree(old, ignore_errors=True)


@contextmanager
def new_file(out: str) -> Iterator[Path]:
    """Yield the path of a file that becomes ``out`` in the end; it is to be fsynced."""
    paths = OutputPaths.of(out)
    with OutputLock(out), disk_errors(out, _SAFE):
        temporary = Path(paths.temporary)
        try:
            yield temporary
            rename_into_place(str(temporary), paths.final)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink()
            raise


def _sync(file: Path) -> None:
    descriptor = os.open(file, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
