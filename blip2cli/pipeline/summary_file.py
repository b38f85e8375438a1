"""The file of a run's summary, which is replaced by the next summary for the same output only."""

from __future__ import annotations

import json
import os
import stat

from blip2cli.errors import OutputError, option
from blip2cli.pipeline.events import Summary
from blip2cli.storage import durable
from blip2cli.storage.opening import is_remote

_KEYS = {"task", "model", "output", "done", "failed", "exit_code"}
_LONGEST = 1 << 16  # bytes; no summary is longer


def check_summary(path: str | None, out: str | None) -> None:
    """Raise ``OutputError`` when a summary of ``out`` cannot be written to ``path``."""
    if path is None:
        return
    if is_remote(path):
        wrong = " is only written to the local disk", "name a local file"
    elif os.path.isdir(path):
        wrong = f" {path} is a folder", "give the name of a file"
    elif not os.path.isdir(os.path.dirname(os.path.realpath(path))):
        wrong = f" {path}: its folder does not exist", "create it first"
    elif os.path.lexists(path) and not _is_summary(path, out):
        wrong = (
            f" {path} is there already and is no summary of a run with this output",
            "remove it, or choose another name",
        )
    else:
        return
    raise OutputError("summary", option("summary") + wrong[0], wrong[1])


def write_summary(path: str, summary: Summary) -> None:
    """Write ``summary`` as one JSON object, in one step. Raises ``OutputError``."""
    check_summary(path, summary.output)
    final = os.path.realpath(path)
    data = json.dumps(summary.as_dict(), indent=2).encode() + b"\n"
    try:
        there = os.path.lexists(final)
        durable.replace_file(durable.temporary_name(final), final, data, replace=there)
    except OSError as error:
        raise OutputError(
            "summary", f"{option('summary')} {path} cannot be written: {error.strerror}"
        ) from None


def _is_summary(path: str, out: str | None) -> bool:
    """Whether the file is a summary of a run with the output ``out``."""
    try:
        if not stat.S_ISREG(os.stat(path).st_mode):
            return False  # opening a pipe would wait
        with open(path, "rb") as file:
            found = json.loads(file.read(_LONGEST))
    except (OSError, ValueError, RecursionError):
        return False
    if not isinstance(found, dict) or not found.keys() >= _KEYS:
        return False
    before = found["output"]
    if before is None or out is None:
        return bool(before == out)
    return isinstance(before, str) and os.path.realpath(before) == os.path.realpath(out)
