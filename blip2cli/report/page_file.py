"""The files of a page: the page, and beside it the folder of its sprite sheets.

Sheets are called by a digest of their bytes, so those of a new page and of the one it replaces lie
in one folder: they are written first, then the page takes its place in one step, then those that
no page names any more are removed. Whenever this ends, the page that is there has its sheets.

A page replaces its own predecessor, the page of the same output by its token or by where it lies;
another one only with ``overwrite``; and nothing that is no page.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import stat
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from blip2cli.errors import OutputError, option
from blip2cli.report.about import Identity
from blip2cli.sinks.base import disk_errors
from blip2cli.sinks.check_output import check_parent
from blip2cli.sinks.lock import OutputLock
from blip2cli.storage import durable
from blip2cli.storage.opening import is_remote

SUFFIXES = (".html", ".htm")
_RUN = re.compile(rb'<script[^>]*\bid="run"[^>]*>(.*?)</script>', re.DOTALL)
# WebP, which browsers know by its content. With a suffix of images a run over the folder that the
# page lies in would take sheets for images.
_SHEET = re.compile(r"sheet-[0-9a-f]{16}\.sprites")
_TEMPORARY = re.compile(r"\.sheet-[0-9a-f]{16}\.sprites\.[0-9a-f]{8}\.tmp")


def check_page(path: str, about: Identity, overwrite: bool = False, name: str = "out") -> None:
    """Raise OutputError, about the option ``name``, when no page can be written at ``path``."""
    if is_remote(path):
        raise OutputError(name, "A page is only written to the local disk", "name a local file")
    if not path.lower().endswith(SUFFIXES):
        raise OutputError(
            name, f"The page {path!r} has another suffix than .html", f"call it {path + '.html'!r}"
        )
    final = os.path.realpath(path)
    check_parent(final, name)
    folder = folder_of(final)
    if os.path.islink(folder) or (os.path.lexists(folder) and not os.path.isdir(folder)):
        raise OutputError(
            name, f"{folder!r}, where pictures of the page belong, is no folder", "move it away"
        )
    try:
        others = [one for one in os.listdir(folder) if not _is_ours(one)]
    except FileNotFoundError:
        others = []
    except OSError as error:
        raise OutputError(
            name,
            f"The folder {folder!r}, where pictures of the page belong, cannot be read "
            f"({error.strerror})",
            "move it away, or choose another name for the page",
        ) from None
    if others:
        raise OutputError(
            name,
            f"The folder {folder!r}, where pictures of the page belong, holds {others[0]!r}",
            "move it away, or choose another name for the page",
        )
    if not os.path.lexists(final):
        return
    outputs = outputs_of(final)
    if outputs is None:
        raise OutputError(
            name,
            f"{path!r} is there already and is no page of an output",
            "remove it, or choose another name",
        )
    if not overwrite and not _same_output(outputs, about):
        raise OutputError(
            name,
            f"{path!r} is the page of another output",
            f"add {option('overwrite')} to replace it, or choose another name"
            if name == "out"
            else "remove it, or choose another name",
        )


def folder_of(path: str) -> str:
    """The folder beside the page ``path``."""
    return f"{os.path.splitext(path)[0]}_files"


def outputs_of(path: str) -> list[dict[str, Any]] | None:
    """What the page ``path`` says of its outputs; None for what is no page."""
    run = _run_of(path)
    outputs = run.get("outputs") if run is not None else None
    if not isinstance(outputs, list) or not outputs:
        return None
    return outputs if all(isinstance(one, dict) for one in outputs) else None


def _run_of(path: str) -> dict[str, Any] | None:
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return None  # opening a pipe would wait
        with open(path, "rb") as file:
            found = _RUN.search(file.read())
        run = json.loads(found[1]) if found is not None else None
    except (OSError, ValueError, RecursionError):
        return None
    return run if isinstance(run, dict) else None


def _same_output(outputs: list[dict[str, Any]], about: Identity) -> bool:
    before = outputs[0]
    same_token = about.token is not None and before.get("token") == about.token
    return same_token or before.get("places") == list(about.places)


def _is_ours(name: str) -> bool:
    return bool(_SHEET.fullmatch(name) or _TEMPORARY.fullmatch(name))


@dataclass
class PageWriter:
    """Writes a page; made by ``writing``."""

    path: str  # without links
    _named: set[str] = field(default_factory=set)  # sheets of the new page
    _made_folder: bool = False

    @property
    def folder(self) -> str:
        """The folder of sheets."""
        return folder_of(self.path)

    def put_sheet(self, data: bytes) -> str:
        """Store a sheet; returns its name relative to the page, as a URL. Raises OSError."""
        if not self._made_folder:
            os.makedirs(self.folder, exist_ok=True)
            self._made_folder = True
        name = f"sheet-{hashlib.sha256(data).hexdigest()[:16]}.sprites"
        self._named.add(name)
        path = os.path.join(self.folder, name)
        if not os.path.isfile(path) or os.path.getsize(path) != len(data):
            durable.replace_file(durable.temporary_name(path), path, data, sync=False)
        return quote(f"{os.path.basename(self.folder)}/{name}")

    def finish(self, html: str) -> None:
        """Put the page in its place, and remove sheets that it does not name. Raises OSError."""
        if self._made_folder:
            durable.sync_folder(self.folder)
            durable.sync_folder(os.path.dirname(self.path))
        there = os.path.lexists(self.path)
        temporary = durable.temporary_name(self.path)
        # Names that are not UTF-8 are escaped long before; a lone surrogate must not end this.
        data = html.encode("utf-8", "backslashreplace")
        durable.replace_file(temporary, self.path, data, replace=there)
        _sweep(self.folder, self._named)


@contextlib.contextmanager
def writing(path: str, about: Identity, overwrite: bool, name: str) -> Iterator[PageWriter]:
    """Yield a writer of the page ``path``, while nobody else may write it.

    Raises OutputError as ``check_page`` does, and RunError when the disk is full or failing.
    """
    final = os.path.realpath(path)
    check_page(path, about, overwrite, name)
    with OutputLock(final) as lock, disk_errors(path, "a page that was there is unchanged"):
        lock.sweep()
        check_page(path, about, overwrite, name)  # again: nobody else writes it now
        try:
            yield PageWriter(final)
        except BaseException:
            _sweep(folder_of(final), _sheets_of(final))
            raise


def _sheets_of(path: str) -> set[str]:
    """The names of the sheets of the page that is there."""
    sprites = (_run_of(path) or {}).get("sprites")
    sheets = sprites.get("sheets") if isinstance(sprites, dict) else None
    return {str(name).rpartition("/")[2] for name in sheets or ()}


def _sweep(folder: str, named: set[str]) -> None:
    """Remove our files in the folder but those ``named``, and the folder if it is empty."""
    if os.path.islink(folder) or not os.path.isdir(folder):
        return
    for name in os.listdir(folder):
        if _is_ours(name) and name not in named:
            durable.remove_quietly(os.path.join(folder, name))
    with contextlib.suppress(OSError):
        os.rmdir(folder)
