"""The models that ship inside the package."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path

# The models in blip2cli/tiny/weights, and the published one of the same kind.
EMBEDDED: dict[str, str] = {
    "tiny": "Salesforce/blip2-opt-2.7b",
    "tiny-t5": "Salesforce/blip2-flan-t5-xl",
    "tiny-itm": "Salesforce/blip2-itm-vit-g",
    "tiny-instruct": "Salesforce/instructblip-flan-t5-xl",
}


def embedded_root() -> Path:
    """The directory of all embedded models; they may name one another's weight files."""
    return Path(str(files("blip2cli"))) / "tiny" / "weights"


def embedded_path(name: str) -> Path:
    """The directory of the embedded model ``name``, a key of ``EMBEDDED``."""
    return embedded_root() / name
