"""How large the file of one image may be, wherever it lies.

``error_type`` name raised here: ``too_large``. What decoding may cost is limited in
``images/limits``.
"""

from __future__ import annotations

from blip2cli.errors import ImageError

MAX_FILE_BYTES = 1 << 30  # a larger "image" is a mistake, and would fill the memory


def check_size(size: int, what: str = "It", most: int = MAX_FILE_BYTES) -> None:
    """Raise ImageError ``too_large`` for more than ``most`` bytes."""
    if size > most:
        raise ImageError("too_large", f"{what} holds {size} bytes, over {limit(most)}.")


def limit(most: int = MAX_FILE_BYTES) -> str:
    """The limit, for people."""
    return f"{most / (1 << 30):g} GiB"
