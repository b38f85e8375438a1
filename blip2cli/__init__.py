"""blip2cli: captions, answers and embeddings from BLIP-2 for whole folders of images."""

from __future__ import annotations

TYPE_CHECKING = False  # as type checkers know it: importing typing takes time
if TYPE_CHECKING:
    from typing import Any

    from blip2cli.api import AnswerRow, Blip2, CaptionRow, Rows

__all__ = ["AnswerRow", "Blip2", "CaptionRow", "Rows", "__version__"]
__version__ = "0.2.0"


def __getattr__(name: str) -> Any:
    """Import the Python API when it is first asked for; the command line does without."""
    if name in __all__:
        from blip2cli import api

        return getattr(api, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
