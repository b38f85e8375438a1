"""How large the file of one image may be, wherever it lies.

``error_type`` name raised here: ``too_large``. What decoding may cost is limited in
``images/limits``.
"""

from __future__ import annotations

from blip2cli.errors import ImageError

MAX_FILE_BYTES = 1 << 30  # a larger "image" is a mistake, and would fill the memory


def check_size(size: int, what: str = "It") -> None:
    """Raise ImageError ``too_large`` for more bytes than an image may have."""
    if size > MAX_FILE_BYTES:
        raise ImageError("too_large", f"{what} holds {size} bytes, over {limit()}.")


def limit() -> str:
    """The limit, for people."""
    return f"{MAX_FILE_BYTES / (1 << 30):g} GiB"
