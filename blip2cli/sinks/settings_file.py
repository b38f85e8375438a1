"""The hidden file of settings beside an output, and what is noted in it beside them.

Notes are whether the list of failures is ours (``failures``), whether the run came to its end
(``finished``), and what is in the place of the output until it is replaced (``replaces``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from blip2cli.sinks.object_lock import check_held, memory_of
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage import durable
from blip2cli.storage.object_requests import split_url
from blip2cli.storage.opening import is_remote

METADATA_KEY = b"blip2cli"  # of settings in Parquet files


def store(paths: OutputPaths, path: str, content: Mapping[str, Any]) -> None:
    """Replace the file ``path`` of settings in one step. Raises OSError."""
    data = json.dumps(content, ensure_ascii=False).encode() + b"\n"
    if paths.is_remote:
        folder, name = split_url(path)
        check_held(paths.final)
        memory_of(path).pop(name, None)
        folder.replace(name, data)
        memory_of(path)[name] = data
        return
    durable.replace_file(paths.temporary(), path, data)


def marks(paths: OutputPaths) -> dict[str, Any]:
    """What is noted beside the settings of an output. Raises OSError."""
    return current(paths)


def mark(paths: OutputPaths, **marks: object) -> None:
    """Note these beside the settings of an output; None removes one. Raises OSError."""
    stored = stored_at(paths.meta)
    changed = {k: v for k, v in (stored | marks).items() if v is not None or k not in marks}
    if changed != stored:
        store(paths, paths.meta, changed)


def has_settings(paths: OutputPaths) -> bool:
    """Whether the file with the name of the settings is ours; before any row it only says whether
    there is a list of failures."""
    return not {"settings", "failures"}.isdisjoint(stored_at(paths.meta))


def owns_failures(paths: OutputPaths) -> bool:
    """Whether the file with the name of the list of failures is the list of this output."""
    return current(paths).get("failures") is True


def claim_failures(paths: OutputPaths, owned: bool = True) -> None:
    """Note that the list of failures is ours, before it is created; or that there is none.

    Raises OSError.
    """
    if (stored_at(paths.meta).get("failures") is True) != owned:
        mark(paths, failures=owned)


def is_finished(paths: OutputPaths) -> bool:
    """Whether the run that wrote a share, or a folder, came to its end. Raises OSError."""
    return current(paths).get("finished") is True


def is_replaced(paths: OutputPaths) -> bool:
    """Whether what is in the place of the output is the older one that its parts replace."""
    replaces = current(paths).get("replaces")
    return replaces is not None and replaces == state_of(paths.final)


def forget_replaced(paths: OutputPaths) -> None:
    """Note that the older output is replaced. Raises OSError."""
    mark(paths, replaces=None)


def stored_at(path: str) -> dict[str, Any]:
    """The object in a file of settings; an empty one when it is missing or damaged.

    Raises OSError when it cannot be read: then it must not be written anew.
    """
    try:
        if is_remote(path):
            folder, name = split_url(path)
            memory = memory_of(path)
            if name not in memory:
                memory[name] = folder.read(name) or b""
            stored = json.loads(memory[name])
        else:
            with open(durable.open_regular(path, os.O_RDONLY), "rb") as file:
                stored = json.load(file)
    except (FileNotFoundError, NotADirectoryError, ValueError, RecursionError):
        return {}
    return stored if isinstance(stored, dict) else {}


def current(paths: OutputPaths) -> dict[str, Any]:
    """The object in the file of settings that belongs to the output in place. Raises OSError."""
    return stored_at(paths.next_meta if is_next(paths) else paths.meta)


def is_next(paths: OutputPaths) -> bool:
    """Whether the settings written for a new output belong to the one that is in place."""
    if paths.is_folder:  # whose files name it by its token
        return False
    stored = stored_at(paths.next_meta)
    return bool(stored) and belongs(paths, stored)


def belongs(paths: OutputPaths, stored: Mapping[str, Any]) -> bool:
    """Whether settings are those of the first part, by its token; without parts, of the output, by
    the number of its inode. Raises OSError."""
    if not os.path.lexists(paths.part(0)):
        try:
            return bool(stored.get("inode") == os.stat(paths.final).st_ino)
        except FileNotFoundError:
            return False
    import pyarrow.parquet as pq

    try:
        about = json.loads(pq.read_schema(paths.part(0)).metadata[METADATA_KEY])
    except (ValueError, KeyError, TypeError):  # as Arrow's errors are
        return False
    return "token" in stored and about.get("token", "") == stored["token"]


def state_of(path: str) -> list[int] | None:
    """What tells a file from others of its name, copied or not; None without one."""
    try:
        about = os.stat(path)
    except FileNotFoundError:
        return None
    return [about.st_size, about.st_mtime_ns]
