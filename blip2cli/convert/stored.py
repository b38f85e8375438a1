"""The settings that shaped the rows: they travel with them, so that a run can go on."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from blip2cli.sinks.parquet import METADATA_KEY
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage import durable
from blip2cli.storage.text_encoding import to_json

Settings = Mapping[str, object]


def jsonl_settings(path: str) -> Settings | None:
    """Those in the hidden file beside a JSONL file; None when there is none."""
    try:
        with open(OutputPaths.of(path).meta, "rb") as file:
            return _settings(file.read())
    except OSError:
        return None


def parquet_settings(metadata: Mapping[bytes, bytes] | None) -> Settings | None:
    """Those in the metadata of a Parquet file; None when there are none."""
    return _settings((metadata or {}).get(METADATA_KEY, b""))


def is_ours(metadata: Mapping[bytes, bytes] | None) -> bool:
    """Whether the file's text is stored as ``blip2cli.storage.text_encoding`` says."""
    return METADATA_KEY in (metadata or {})


def parquet_metadata(settings: Settings | None) -> dict[bytes, bytes]:
    """The metadata that marks a Parquet file as ours."""
    about = {"settings": settings} if settings is not None else {}
    return {METADATA_KEY: to_json(about)}


def common(every: Sequence[Settings | None]) -> Settings | None:
    """The settings that all sources have; None when they differ."""
    first = every[0] if every else None
    return first if all(settings == first for settings in every) else None


@contextlib.contextmanager
def keep_settings(path: str, inode: int, settings: Settings | None) -> Iterator[None]:
    """Put ``settings`` beside the JSONL file that takes its place in the body.

    In the order of ``sinks.jsonl``: a crash between the two leaves settings that tell which rows
    they belong to.
    """
    paths = OutputPaths.of(path)
    if settings is None:
        yield
        durable.remove(paths.meta)  # of an output that was replaced
        return
    data = to_json({"settings": settings, "inode": inode}) + b"\n"
    durable.replace_file(paths.hidden(".meta.tmp"), paths.next_meta, data)
    try:
        yield
    except BaseException:
        durable.remove_quietly(paths.next_meta)
        raise
    durable.rename_into_place(paths.next_meta, paths.meta)


def _settings(data: bytes) -> dict[str, Any] | None:
    try:
        settings = json.loads(data)["settings"]
    except (ValueError, KeyError, TypeError):
        return None
    return settings if isinstance(settings, dict) else None
