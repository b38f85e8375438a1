"""The files of a folder output as objects of a store.

Visible parts lie below the URL of the output, where every reader of Parquet finds them; what
belongs to them lies below a hidden name beside it (``OutputPaths.beside_folder``). Every object is
put by one exclusive request, so two runs cannot replace one another's rows.

Rows that are not enough for a part stand in objects named by their token and first row alone: the
run that puts the rows from there on first has that name, whatever their number. How many there are
the object says itself.

A listing may lag behind. So the objects that would follow the listed ones are asked for by name.
"""

from __future__ import annotations

import contextlib
import errno
import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO

import pyarrow.parquet as pq

from blip2cli.sinks.folder_layout import (
    HIDDEN,
    ROWS_PER_PART,
    VISIBLE,
    HiddenRows,
    part_name,
    short_token,
)
from blip2cli.sinks.object_lock import check_held
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.row_groups import ARROW_ERRORS, first_line
from blip2cli.sinks.settings_file import stored_at
from blip2cli.storage.object_requests import ObjectFolder
from blip2cli.storage.opening import open_binary
from blip2cli.storage.remote_errors import RemoteError
from blip2cli.storage.secrets import hide_secrets

# Of hidden rows that this process has put, so that parts are made without fetching them, and of
# what is read next.
CACHED_BYTES = 64 << 20
_WHOLE = 16 << 20  # bytes of a visible part that is fetched as a whole; of a larger one, columns
_AT_ONCE = 16  # requests under way
_FOOTER = 64 << 10  # bytes at the end of a Parquet file that tell the number of its rows, mostly


class ObjectStore:
    """A ``FolderStore`` of objects."""

    def __init__(self, paths: OutputPaths) -> None:
        self._paths = paths
        self._visible = ObjectFolder(paths.final)
        self._hidden = ObjectFolder(paths.beside_folder)
        self._counts: dict[str, int] = {}  # of hidden rows that were there, by their keys
        self._sizes: dict[str, int] = {}  # of visible parts, in bytes, when they were listed
        self._cache: dict[str, bytes] = {}  # the content of both, as far as it is cached

    def sizes(self) -> dict[str, int]:
        parts = self._parts()
        sizes = dict.fromkeys(parts, 1)
        for rows in self._rows(parts[-1] if parts else None):
            sizes[rows.name] = 1
        return sizes

    def missing(self, names: list[str]) -> str | None:
        """Only the last visible and the last hidden one are asked for: each costs a request."""
        check_held(self._paths.final)
        hidden = [name for name in names if HIDDEN.fullmatch(name)]
        visible = names[: len(names) - len(hidden)]
        for name in (*visible[-1:], *hidden[-1:]):
            folder, key = self._place(name)
            if not folder.exists(key):
                return name
        return None

    def source(self, name: str) -> BinaryIO:
        folder, key = self._place(name)
        if folder is self._visible and self._sizes.get(key, _WHOLE) >= _WHOLE:
            return open_binary(folder.url_of(key))
        if key not in self._cache:
            self._fetch_from(folder, key)
        return io.BytesIO(self._cache[key])

    def prepare(self) -> None:
        """Folders need not be created."""

    @contextlib.contextmanager
    def create(self, name: str, replace: bool = False) -> Iterator[BinaryIO]:
        folder, key = self._place(name)
        buffer = io.BytesIO()
        yield buffer
        data = buffer.getvalue()
        check_held(self._paths.final)
        self._cache.pop(key, None)
        if replace:
            folder.replace(key, data)
        elif not folder.create(key, data):
            raise FileExistsError(errno.EEXIST, f"another run has put {key!r} there meanwhile")
        if folder is self._hidden:
            self._counts[key] = HiddenRows.of(name).count  # type: ignore[union-attr]
            self._keep(key, data)

    def remove(self, names: list[str]) -> None:
        if names:
            check_held(self._paths.final)
        for name in reversed(names):
            folder, key = self._place(name)
            folder.remove(key)
            self._counts.pop(key, None)
            self._cache.pop(key, None)

    def shown(self, name: str) -> str:
        folder, key = self._place(name)
        return hide_secrets(folder.url_of(key))

    def _place(self, name: str) -> tuple[ObjectFolder, str]:
        """The folder of a file, and its name there."""
        rows = HiddenRows.of(name)
        if rows is None:
            return self._visible, name
        return self._hidden, _key(rows.token, rows.start)

    def _parts(self) -> list[str]:
        """The visible parts; a missing one is left out."""
        self._sizes = self._visible.sizes()
        listed = {name for name in self._sizes if VISIBLE.fullmatch(name)}
        last = max(map(_number, listed), default=-1)
        parts = [n for n in map(part_name, range(last + 1)) if n in listed or self._is_part(n)]
        while self._is_part(part_name(last + 1)):
            last += 1
            parts.append(part_name(last))
        return parts

    def _is_part(self, name: str) -> bool:
        return self._visible.exists(name)

    def _rows(self, last: str | None) -> Iterator[HiddenRows]:
        """The hidden rows behind the ``last`` visible part, and those of other outputs."""
        about = stored_at(self._paths.meta)
        token = short_token(str(about.get("token") or ""))
        behind = 0  # the row behind the last one of this output
        keys = [key for key in self._hidden.names() if HIDDEN.fullmatch(f"{key}-0")]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            counts = list(threads.map(self._count, keys))
        found = [_rows(key, n) for key, n in zip(keys, counts, strict=True) if n is not None]
        own = sorted((rows for rows in found if rows.token == token), key=lambda rows: rows.start)
        visible = 0
        if last is not None and not about.get("replaces"):
            part_rows = (about.get("settings") or {}).get("rows_per_part") or ROWS_PER_PART
            visible = _number(last) * part_rows
            try:
                visible += pq.read_metadata(self.source(last)).num_rows
            except (RemoteError, FileNotFoundError):
                raise
            except ARROW_ERRORS:
                pass  # who reads its rows says that it is damaged
        behind = max((rows.end for rows in own), default=0)
        behind = max(behind, visible)
        while about and (count := self._count(_key(token, behind))) is not None:
            own.append(HiddenRows(token, behind, count))
            behind += count
        # A part may end within hidden rows. If those were not listed, a run has put the rest anew.
        anew = any(rows.start == visible for rows in own)
        yield from (rows for rows in own if not (anew and rows.start < visible < rows.end))
        yield from (rows for rows in found if rows.token != token)

    def _count(self, key: str) -> int | None:
        """How many hidden rows an object holds; None without it."""
        if key not in self._counts:
            data = self._hidden.read_end(key, _FOOTER)
            if data is None:
                return None
            with contextlib.suppress(*ARROW_ERRORS):  # the settings in it may be longer
                self._counts[key] = pq.read_metadata(io.BytesIO(data)).num_rows
                return self._counts[key]
            try:
                count = pq.read_metadata(io.BytesIO(self._hidden.read(key) or b"")).num_rows
            except ARROW_ERRORS as error:
                raise OSError(errno.EIO, f"{key!r} is damaged, {first_line(error)}") from None
            self._counts[key] = count
        return self._counts[key]

    def _fetch_from(self, folder: ObjectFolder, key: str) -> None:
        """Cache the object, and those behind it. Raises FileNotFoundError when it is gone."""
        known = self._sizes if folder is self._visible else self._counts
        following = [k for k in sorted(known) if k > key and k not in self._cache]
        if folder is self._visible:
            following = [k for k in following[:3] if self._sizes[k] < _WHOLE]
        keys = [key, *following[: _AT_ONCE - 1]]
        with ThreadPoolExecutor(_AT_ONCE) as threads:
            found = list(threads.map(folder.read, keys))
        for other, data in reversed([*zip(keys, found, strict=True)]):  # the first is cached last
            if data is not None:
                self._keep(other, data)
        if found[0] is None:
            raise FileNotFoundError(errno.ENOENT, "it is gone", folder.url_of(key))

    def _keep(self, key: str, data: bytes) -> None:
        """Cache an object, instead of those that were cached first where they are too many."""
        self._cache[key] = data
        while sum(map(len, self._cache.values())) > CACHED_BYTES and len(self._cache) > 1:
            del self._cache[next(iter(self._cache))]


def _number(part: str) -> int:
    return int(part[len("part-") : -len(".parquet")])


def _rows(key: str, count: int) -> HiddenRows:
    _, token, start = key.split("-")
    return HiddenRows(token, int(start), count)


def _key(token: str, start: int) -> str:
    return f"rows-{token}-{start:012d}"
