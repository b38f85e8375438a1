"""From the name of a model to its checkpoint on this machine."""

from __future__ import annotations

import contextlib
import difflib
import re
from pathlib import Path

from blip2cli.errors import ModelError, option
from blip2cli.model.checkpoint.embedded import EMBEDDED, embedded_path
from blip2cli.model.checkpoint.hub import fetch
from blip2cli.model.checkpoint.weight_files import Checkpoint, inspect_checkpoint
from blip2cli.options import ModelOptions
from blip2cli.system.library_logging import silence_hub

# owner/name, as the hub spells them; every BLIP-2 repository has an owner.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)


def resolve(name: str, revision: str | None = None) -> Checkpoint:
    """Find the model called ``name``: embedded, a local directory, or a hub repository.

    ``tiny`` is the embedded model even where a directory of that name stands; ``./tiny`` is the
    directory. A directory wins over a hub id of the same spelling. Raises ModelError, with a
    remedy, when it is none of these or cannot be used.
    """
    if name in EMBEDDED:
        path = embedded_path(name)
        if not (path / "config.json").is_file():
            raise ModelError(
                "model",
                f"the embedded model {name} is missing from this installation",
                "install blip2cli again, or run make tiny in a checkout",
            )
        return inspect_checkpoint(path)
    path = Path(name).expanduser()
    if path.is_dir():
        if revision is not None:
            raise ModelError(
                "revision",
                f"{option('revision')} {revision} is for models from the hub, and {name} is a "
                "directory",
                "leave it out",
            )
        return inspect_checkpoint(path)
    if path.is_file():
        raise ModelError(
            "model", f"{name} is a file", "give the directory that holds the whole model"
        )
    if HUB_ID.fullmatch(name) is None:
        raise ModelError(
            "model",
            f"{name} is neither an embedded model ({', '.join(EMBEDDED)}), a directory nor a hub "
            "id (owner/name)",
            _suggestion(name),
        )
    try:
        with silence_hub():
            return fetch(name, revision)
    except ModelError as error:
        hint = _suggestion(name)
        if not hint:
            raise
        remedy = f"{error.remedy}; {hint}" if error.remedy else hint
        raise ModelError("model", error.problem, remedy) from error.__cause__


def local_checkpoint(options: ModelOptions) -> Checkpoint | None:
    """The checkpoint of an embedded model or of a directory; never looks at the hub.

    None for other names, and for what is broken: ``resolve`` says what is wrong with it.
    """
    if options.model in EMBEDDED or Path(options.model).expanduser().is_dir():
        with contextlib.suppress(ModelError, OSError):
            return resolve(options.model, options.revision)
    return None


def _suggestion(name: str) -> str:
    """A question naming what may have been meant, or nothing."""
    path = Path(name).expanduser()
    known = {key: key for key in EMBEDDED}
    try:
        beside = [entry for entry in path.parent.iterdir() if entry.is_dir()]
    except OSError:
        beside = []
    known |= {entry.name: str(entry) for entry in beside if (entry / "config.json").is_file()}
    close = difflib.get_close_matches(path.name, known, n=1)
    return f"did you mean {known[close[0]]}?" if close else ""
