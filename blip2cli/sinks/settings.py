"""The settings of an output, which say what shaped its rows: a hidden file, or Parquet metadata.

The file belongs to a JSONL output. It is written before the output takes its place, under another
name and with the output's inode number, and renamed after that. So after a crash at any point it is
known which rows the settings belong to.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping

from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage import durable
from blip2cli.storage.text_encoding import deep_from_utf8, to_json

METADATA_KEY = b"blip2cli"
Settings = Mapping[str, object]  # plain JSON values


def parquet_metadata(settings: Settings | None) -> dict[bytes, bytes]:
    """The metadata that marks a Parquet file as an output, with its settings if they are known."""
    return {METADATA_KEY: to_json({} if settings is None else {"settings": settings})}


def parquet_settings(metadata: Mapping[bytes, bytes] | None) -> Settings | None:
    """The settings in the metadata of a Parquet file; None when there are none."""
    return _parsed((metadata or {}).get(METADATA_KEY, b""))


def read_settings(paths: OutputPaths) -> Settings | None:
    """The settings beside a JSONL output; None when they are missing or damaged."""
    try:
        with open(paths.next_meta if _is_next(paths) else paths.meta, "rb") as file:
            return _parsed(file.read())
    except OSError:
        return None


@contextlib.contextmanager
def write_settings(paths: OutputPaths, settings: Settings | None, inode: int) -> Iterator[None]:
    """Store the settings of the file with this ``inode``, which becomes the output in the body.

    With None, those of an output that is replaced are removed. Raises OSError.
    """
    if settings is None:
        yield
        durable.remove(paths.meta)
        return
    data = to_json({"settings": settings, "inode": inode}) + b"\n"
    durable.replace_file(paths.temporary(), paths.next_meta, data)
    try:
        yield
    except BaseException:
        try:
            in_place = os.stat(paths.final).st_ino == inode
        except OSError as error:
            in_place = not isinstance(error, FileNotFoundError)  # perhaps
        if not in_place:
            durable.remove_quietly(paths.next_meta)
        raise
    durable.rename_into_place(paths.next_meta, paths.meta)


def recover_settings(paths: OutputPaths) -> None:
    """Complete what a crash between an output and its settings left undone. Raises OSError."""
    if _is_next(paths):
        durable.rename_into_place(paths.next_meta, paths.meta)
    else:
        durable.remove(paths.next_meta)


def _is_next(paths: OutputPaths) -> bool:
    """Whether the settings written for a new output belong to the one that is in place."""
    try:
        with open(paths.next_meta, "rb") as file:
            inode = json.load(file)["inode"]
        return bool(inode == os.stat(paths.final).st_ino)
    except (OSError, ValueError, KeyError, TypeError):
        return False


def _parsed(data: bytes) -> Settings | None:
    try:
        settings = json.loads(data)["settings"]
    except (ValueError, KeyError, TypeError):
        return None
    if not isinstance(settings, dict):
        return None
    names = {"num_return": "num_captions"}  # settings from before version 0.2 by today's names
    if "questions_file" in settings or isinstance(settings.get("questions"), list):
        names |= {"questions": "question", "questions_file": "questions"}
    return {names.get(name) or name: deep_from_utf8(value) for name, value in settings.items()}
