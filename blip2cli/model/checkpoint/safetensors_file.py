"""Opening safetensors files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from safetensors import SafetensorError, safe_open

from blip2cli.errors import ModelError


@contextmanager
def open_safetensors(file: Path) -> Iterator[safe_open]:
    """Open a file of torch tensors.

    Raises ModelError when it is damaged or cut short, which safetensors finds out from the header
    and the length of the file, and OSError when it cannot be read.
    """
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
