"""Objects below one prefix of an object store: put by one request each, never half there.

A store has no rename, no append and no locks. What it has is the conditional put: ``create`` puts
an object only where none has its name (``If-None-Match: *`` with S3, generation 0 with Google
Cloud), so of two runs one gets a name. Whether the store heeds the condition is tried, not
believed: some take the header and ignore it.

The answer to a put can be lost after the put took effect, and the repetition is refused then. So a
refused put reads the object: the same bytes are our own. A conflict and a store that asks to
slow down are waited out (``PAUSES``), on top of what the libraries repeat themselves. Objects are
read by their names; listings may lag behind, and nothing relies on them for what was just written.
"""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from functools import partial
from typing import Any, TypeVar

from blip2cli.errors import OutputError
from blip2cli.storage.opening import connect, protocol_of
from blip2cli.storage.remote_errors import (
    RemoteError,
    is_refused,
    remote_error,
)
from blip2cli.storage.secrets import hide_secrets

T = TypeVar("T")

# Protocols whose libraries make conditional puts of ``mode="create"``. With others fsspec looks and
# writes then, and between the two another run may have written.
CONDITIONAL = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})

# Seconds between repetitions; about three minutes in all. Each is drawn between half of it and the
# whole, so that runs that were throttled together do not come back together.
PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0, 30.0, 60.0, 60.0)
FIRST_PAUSES = (0.5, 1.0)  # where a user waits for the run to start
# What is put in one request: 5 GiB are the limit of S3. Several requests would leave the condition
# to the last, where some stores forget it.
_ONE_PUT = 5 << 30


class ObjectFolder:
    """The objects whose names begin with one URL. Names given and returned are without it.

    Every method may raise RemoteError, an OSError, when a request failed for good.
    """

    def __init__(self, url: str, pauses: Sequence[float] = PAUSES) -> None:
        """``pauses``: seconds before each repetition of a request."""
        self.url = url.rstrip("/")
        self._pauses = pauses
        self._azure = protocol_of(url) in ("abfs", "abfss", "az")
        # What was listed or found missing before says nothing: other runs write as well.
        self._filesystem, self._path = connect(self.url, use_listings_cache=False)

    def create(self, name: str, data: bytes) -> bool:
        """Put a new object; False where another one has the name. The same bytes are no other."""

        def put() -> bool:
            try:
                self._put(name, data, mode="create")
            except Exception as error:
                if not is_refused(error):
                    raise
                found = self._read(name)
                if found is None:  # removed meanwhile, or a conflict with a put under way
                    raise
                return found == data
            return True

        try:
            return self._repeated(put)
        except RemoteError:
            # The last answer may have been lost as well.
            with contextlib.suppress(Exception):
                if self._read(name) == data:
                    return True
            raise

    def replace(self, name: str, data: bytes) -> None:
        """Put an object, whatever had the name before."""
        self._repeated(lambda: self._put(name, data))

    def read(self, name: str) -> bytes | None:
        """The content of an object; None without one."""
        return self._repeated(lambda: self._read(name), "read")

    def read_end(self, name: str, size: int) -> bytes | None:
        """The last ``size`` bytes of an object, or all there are; None without one."""

        def read() -> bytes | None:
            start = -size
            if self._azure:  # knows no offset from the end
                info = self._info(name)
                if info is None:
                    return None
                start = max(0, info["size"] - size)
            return self._read(name, start=start)

        return self._repeated(read, "read")

    def exists(self, name: str) -> bool:
        """Whether there is an object of one byte or more."""
        # Of a missing one, ``info`` of s3fs would list what it might be a folder of.
        return self._repeated(lambda: self._read(name, start=0, end=1), "read") is not None

    def modified(self, name: str) -> datetime | None:
        """When an object was put, by the clock of the store; None without one."""
        info = self._repeated(lambda: self._info(name), "read")
        return None if info is None else _time_of(info)

    def latest(self) -> float:
        """When the last object was put, in seconds since 1970; 0 without any."""
        times = (_time_of(info) for info in self._listed())
        return max((time.timestamp() for time in times if time is not None), default=0.0)

    def names(self) -> list[str]:
        """The names of all objects, folders in them left out, sorted; it may lag behind."""
        return sorted(self.sizes())

    def sizes(self) -> dict[str, int]:
        """Their bytes, by name."""
        return {info["name"].rpartition("/")[2]: int(info["size"]) for info in self._listed()}

    def remove(self, *names: str) -> None:
        """Remove those of the objects that exist, in this order."""
        for name in names:
            self._repeated(partial(self._remove, name))

    def url_of(self, name: str) -> str:
        """The URL of an object."""
        return f"{self.url}/{name}"

    def check_refused(self, name: str, field: str = "out") -> None:
        """Raise OutputError if the store puts a second object under the name of one of ours, which
        is removed then. RemoteError when it cannot be tried."""
        if not self.create(name, b"a second object\n"):
            return
        self.remove(name)
        raise OutputError(
            field,
            f"The server of {hide_secrets(self.url)!r} takes a second object under the name of the "
            "first, though the request forbids it (If-None-Match), so two runs could replace one "
            "another's rows",
            "write to a local folder and copy it there afterwards, or use another store",
        )

    def _listed(self) -> list[dict[str, Any]]:
        def listed() -> list[dict[str, Any]]:
            try:
                found: list[dict[str, Any]] = self._filesystem.ls(self._path, detail=True)
            except FileNotFoundError:
                return []
            return found

        found = self._repeated(listed, "read")
        # Some store an object for the folder itself.
        return [i for i in found if i["type"] == "file" and i["name"].strip("/") != self._path]

    def _put(self, name: str, data: bytes, **mode: str) -> None:
        path = f"{self._path}/{name}"
        one_put = {} if self._azure else {"chunksize": _ONE_PUT}
        self._filesystem.pipe_file(path, data, **mode, **one_put)

    def _read(self, name: str, **part: int) -> bytes | None:
        # One request; s3fs would ask for the size first, to fetch ranges of it concurrently.
        s3 = protocol_of(self.url) in ("s3", "s3a") and not part
        whole = {"max_concurrency": 1} if s3 else {}
        try:
            data: bytes = self._filesystem.cat_file(f"{self._path}/{name}", **part, **whole)
        except FileNotFoundError:
            return None
        return data

    def _info(self, name: str) -> dict[str, Any] | None:
        try:
            info: dict[str, Any] = self._filesystem.info(f"{self._path}/{name}", refresh=True)
        except FileNotFoundError:
            return None
        return info if info["type"] == "file" else None

    def _remove(self, name: str) -> None:
        with contextlib.suppress(FileNotFoundError):
            self._filesystem.rm_file(f"{self._path}/{name}")

    def _repeated(self, request: Callable[[], T], action: str = "written") -> T:
        for pause in (*self._pauses, None):
            try:
                return request()
            except Exception as error:  # noqa: BLE001 - each protocol has exceptions of its own
                fault = remote_error(self.url, error, action)
                if pause is None or fault.lasting:
                    raise fault from None
                time.sleep(pause * random.uniform(0.5, 1.0))
        raise AssertionError  # the last turn returns or raises


def _time_of(info: dict[str, Any]) -> datetime | None:
    keys = ("LastModified", "mtime", "updated", "last_modified")
    found = next((info[key] for key in keys if info.get(key)), None)
    return datetime.fromisoformat(found) if isinstance(found, str) else found


def check_protocol(url: str, field: str = "out") -> None:
    """Raise OutputError for a URL of a protocol without conditional puts."""
    protocol = protocol_of(url)
    if protocol not in CONDITIONAL:
        raise OutputError(
            field,
            f"The output {hide_secrets(url)!r} is a URL of {protocol}://, where two runs could "
            "replace one another's rows",
            "name a folder of an object store (s3://, gs://, abfs://), or a local file or folder",
        )


def split_url(url: str) -> tuple[ObjectFolder, str]:
    """The folder of the object at ``url``, and its name there."""
    folder, _, name = url.rpartition("/")
    return ObjectFolder(folder), name
