"""Writer of JSON Lines on standard output."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import BinaryIO

from blip2cli.sinks.base import RowSchema, disk_errors
from blip2cli.storage.text_encoding import to_json


class StdoutSink:
    """Writes and flushes each batch, so that the next program of a pipe can work on it at once.

    A pipe that the reader closed (``| head``) raises BrokenPipeError. The stream stays open.
    """

    def __init__(self, stream: BinaryIO, schema: RowSchema) -> None:
        self._stream = stream
        self._schema = schema

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        lines = b"".join(to_json(self._schema.complete(row)) + b"\n" for row in rows)
        with disk_errors("stdout", "rows before that were written"):
            self._stream.write(lines)
            self._stream.flush()

    def commit(self) -> None:
        """Nothing more can be done for rows on their way to another program."""

    def close(self) -> None:
        """The stream belongs to the caller."""

    def abort(self) -> None:
        """There is nothing to remove."""
