"""Safetensors files: their tensors, and their headers alone, for which no library is needed."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from blip2cli.errors import ModelError

if TYPE_CHECKING:
    from safetensors import safe_open

_HEADER_LIMIT = 100 << 20  # bytes; the library reads no longer headers either


def read_header(stream: BinaryIO) -> dict[str, Any]:
    """What a file says of its tensors, by name; its data follows. Empty for any other file."""
    length = int.from_bytes(stream.read(8), "little")
    try:
        header = json.loads(stream.read(length)) if length <= _HEADER_LIMIT else None
    except (ValueError, RecursionError):
        return {}
    tensors = header.items() if isinstance(header, dict) else ()
    return {name: about for name, about in tensors if name != "__metadata__"}


@contextmanager
def open_safetensors(file: Path) -> Iterator[safe_open]:
    """Open a file of torch tensors.

    Raises ModelError when it is damaged or cut short, which safetensors finds out from the header
    and the length of the file, and OSError when it cannot be read.
    """
    from safetensors import SafetensorError, safe_open

    with file.open("rb"):  # an OSError of safetensors has no ``strerror``
        pass
    try:
        opened = safe_open(file, "pt")
    except SafetensorError as error:
        raise ModelError(
            None, f"{file} is damaged or cut short", "delete it and fetch it again"
        ) from error
    with opened as tensors:
        yield tensors
