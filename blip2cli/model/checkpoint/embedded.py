"""The models that ship inside the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

# Name to folder under blip2cli/tiny/weights.
EMBEDDED: dict[str, str] = {"tiny": "tiny", "tiny-t5": "tiny-t5", "tiny-itm": "tiny-itm"}


def embedded_root() -> Path:
    """The directory of all embedded models; they may name one another's weight files."""
    return Path(str(files("blip2cli"))) / "tiny" / "weights"


def embedded_path(name: str) -> Path:
    """The directory of the embedded model ``name``, a key of ``EMBEDDED``."""
    return embedded_root() / EMBEDDED[name]
