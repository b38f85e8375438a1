"""From the names of a model and its adapters to a checkpoint on this machine."""

from __future__ import annotations

import contextlib
import difflib
import math
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from blip2cli.errors import ModelError, OptionError, option
from blip2cli.model.checkpoint.adapter import Adapter, is_adapter, read_adapter
from blip2cli.model.checkpoint.embedded import EMBEDDED, embedded_path
from blip2cli.model.checkpoint.hub import fetch, fetch_adapter
from blip2cli.model.checkpoint.weight_files import Checkpoint, inspect_checkpoint
from blip2cli.options import ModelOptions
from blip2cli.system.library_logging import silence_hub

# owner/name, as the hub spells them; every BLIP-2 repository has an owner.
HUB_ID = re.compile(r"[A-Za-z0-9][\w.-]{0,95}/[\w.-]{1,96}", re.ASCII)


def resolve(name: str, revision: str | None = None, adapters: Sequence[str] = ()) -> Checkpoint:
    """Find the model called ``name``: embedded, a local directory, or a hub repository.

    ``tiny`` is the embedded model even where a directory of that name stands; ``./tiny`` is the
    directory. A directory wins over a hub id of the same spelling. An adapter stands for the model
    that it was trained on, into which it is merged; so are ``adapters``, behind it, whose names may
    end with ``@`` and a scale. Raises ModelError, with a remedy, when it is none of these or cannot
    be used.
    """
    path = _find(name, revision)
    found: tuple[Adapter, ...] = ()
    if name not in EMBEDDED and is_adapter(path):
        found = (read_adapter(name, path),)
        path = _find_base(found[0])
    found += tuple(map(_find_adapter, adapters))
    beside = any(adapter.path.resolve() == path.resolve() for adapter in found)
    checkpoint = inspect_checkpoint(path, adapter_beside=beside)
    return replace(checkpoint, adapters=found) if found else checkpoint


def resolve_model(options: ModelOptions) -> Checkpoint:
    """Find the model that the options name, with its adapters. Raises ModelError."""
    return resolve(options.model, options.revision, options.adapter)


def _find(name: str, revision: str | None) -> Path:
    """The directory of a model, or of an adapter in the place of one."""
    if name in EMBEDDED:
        path = embedded_path(name)
        if not (path / "config.json").is_file():
            raise ModelError(
                "model",
                f"the embedded model {name} is missing from this installation",
                "install blip2cli again, or run make tiny in a checkout",
            )
        return path
    path = Path(name).expanduser()
    if path.is_dir():
        if revision is not None:
            raise ModelError(
                "revision",
                f"{option('revision')} {revision} is for models from the hub, and {name} is a "
                "directory",
                "leave it out",
            )
        return path
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


def _find_base(adapter: Adapter) -> Path:
    """The directory of the model that an adapter was trained on. Raises ModelError."""
    remedy = f"give its base model with {option('model')} and this with {option('adapter')}"
    base = adapter.base
    if base is None:
        problem = f"{adapter.name} is an adapter whose configuration names no base model"
        raise ModelError("model", problem, remedy)
    local = Path(base).expanduser().is_dir() or base in EMBEDDED
    try:
        path = _find(base, None if local else adapter.base_revision)
    except ModelError as error:
        raise ModelError(
            "model",
            f"{adapter.name} is an adapter of {base}, which cannot be used ({error.problem})",
            remedy,
        ) from error
    if base not in EMBEDDED and is_adapter(path):
        problem = f"{adapter.name} is an adapter of {base}, which is an adapter itself"
        raise ModelError("model", problem, f"{remedy}, and that one before it")
    return path


def _find_adapter(text: str) -> Adapter:
    """The adapter that ``NAME`` or ``NAME@SCALE`` means. Raises ModelError, OptionError."""
    name, scale = _split_scale(text)
    path = Path(name).expanduser()
    if path.is_dir():
        return read_adapter(name, path, scale)
    if path.is_file():
        raise ModelError("adapter", f"{name} is a file", "give the directory that it lies in")
    if HUB_ID.fullmatch(name) is None:
        raise ModelError(
            "adapter",
            f"{option('adapter')} {name} is neither a directory nor a hub id (owner/name)",
            "check the path",
        )
    with silence_hub():
        return read_adapter(name, fetch_adapter(name), scale)


def _split_scale(text: str) -> tuple[str, float]:
    """A name and its scale; behind an ``@`` there is one only if no such path exists."""
    name, mark, behind = text.rpartition("@")
    if not mark or Path(text).expanduser().exists():
        return text, 1.0
    try:
        scale = float(behind)
    except ValueError:
        scale = math.nan
    if not math.isfinite(scale):
        raise OptionError(
            "adapter",
            f"{option('adapter')} {text} has a scale that is no number",
            f"write a number behind the @, such as {name}@0.5",
        )
    return name, scale


def local_checkpoint(options: ModelOptions) -> Checkpoint | None:
    """The checkpoint of an embedded model or of a directory; never looks at the hub.

    None for other names, and for what is broken: ``resolve`` says what is wrong with it.
    """
    named = [options.model, *(name for name, _ in map(_split_scale, options.adapter))]
    if all(name in EMBEDDED or Path(name).expanduser().is_dir() for name in named):
        with contextlib.suppress(ModelError, OSError):
            path = Path(options.model).expanduser()
            if options.model not in EMBEDDED and is_adapter(path):
                named.append(read_adapter(options.model, path).base or "")
                if not (named[-1] in EMBEDDED or Path(named[-1]).expanduser().is_dir()):
                    return None
            return resolve_model(options)
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
