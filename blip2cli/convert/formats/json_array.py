"""Writer of a JSON file that is one array, element by element."""

from __future__ import annotations

from typing import Any

from blip2cli.convert.files import new_file
from blip2cli.storage.text_encoding import to_json


class ArrayFile:
    """Writes ``[`` elements ``]``, one a line."""

    def __init__(self, path: str) -> None:
        """Raises OSError."""
        self._out = new_file(path)
        self._first = True
        self._out.file.write(b"[")

    def add(self, value: Any) -> None:
        """Write one element. Raises OSError."""
        self._out.file.write((b"\n" if self._first else b",\n") + to_json(value))
        self._first = False

    def finish(self) -> None:
        """Put the file in its place. Raises OSError."""
        self._out.file.write(b"\n]\n")
        self._out.commit()

    def abort(self) -> None:
        """Remove what was written."""
        self._out.abort()
