"""``--model NAME`` to a checkpoint on this machine."""

from __future__ import annotations

import difflib
from pathlib import Path

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint import Checkpoint, inspect_checkpoint
from blip2cli.model.embedded import EMBEDDED, embedded_path


def resolve(name: str, revision: str | None = None) -> Checkpoint:
    """Find the model called ``name``: embedded, a local directory, or a hub repository.

    A directory wins over a hub id of the same spelling; ``./tiny`` is a directory, ``tiny`` the
    embedded model. Raises ModelError, naming the mend, when it is none of these.
    """
    if name in EMBEDDED:
        return inspect_checkpoint(embedded_path(name))
    path = Path(name).expanduser()
    if path.is_dir():
        return inspect_checkpoint(path)
    raise ModelError(_unknown(name))


def _unknown(name: str) -> str:
    close = difflib.get_close_matches(name, EMBEDDED, n=1)
    hint = f"; did you mean {close[0]}?" if close else "."
    return f"{name} is neither an embedded model, a directory nor a hub id{hint}"
