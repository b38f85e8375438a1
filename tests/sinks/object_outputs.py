"""Folder outputs on an object store, and what lies there."""

from __future__ import annotations

import io
from typing import Any

import pyarrow.parquet as pq
import pytest

from blip2cli.options import OutputOptions
from blip2cli.sinks import RowSchema, Sink, read_output
from blip2cli.sinks.base import IDENTITY
from blip2cli.sinks.folder import FolderSink
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage.object_requests import ObjectFolder
from tests.sinks.helpers import COLUMNS, FOLDER_SETTINGS, row

SCHEMA = RowSchema((*IDENTITY, *COLUMNS))


def repeat_without_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have requests repeated at once."""
    monkeypatch.setattr(ObjectFolder.__init__, "__defaults__", ((0.0,) * 8,))


def new(out: str, replace: bool = False) -> Sink:
    """A sink of parts of 10 rows."""
    return FolderSink(OutputPaths.of(out, replace), SCHEMA, FOLDER_SETTINGS)


def again(out: str) -> Sink:
    """A sink that goes on with the output."""
    resumed = read_output(OutputOptions(out, resume=True), lambda name: 1)
    assert resumed is not None
    return FolderSink(OutputPaths.of(out), SCHEMA, FOLDER_SETTINGS, resumed.rows)


def put(sink: Sink, first: int, last: int) -> None:
    sink.write([row(n) for n in range(first, last)])
    sink.commit()


def content(out: str) -> dict[str, bytes]:
    """The visible objects."""
    folder = ObjectFolder(out)
    return {name: folder.read(name) or b"" for name in folder.names()}


def hidden(out: str) -> list[str]:
    """The objects beside them."""
    return ObjectFolder(OutputPaths.of(out).beside_folder).names()


def rows(out: str) -> list[dict[str, Any]]:
    parts = (pq.read_table(io.BytesIO(data)) for data in content(out).values())
    return [row for part in parts for row in part.to_pylist()]
