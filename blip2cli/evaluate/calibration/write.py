"""Writes a calibration in one step, never over something that is there unless that is asked for."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Sequence
from typing import Any

from blip2cli.errors import OutputError, option
from blip2cli.storage import durable
from blip2cli.storage.opening import is_remote


def check_destination(path: str, overwrite: bool, read: Sequence[str]) -> None:
    """Raise ``OutputError`` when a calibration cannot be written to ``path``, or is to be written
    over one of the files that are ``read``."""
    name = f"{option('out')} {path}"
    final = os.path.realpath(path)
    there = os.path.lexists(final)
    if is_remote(path):
        raise OutputError("out", f"{name} is on another machine", "name a local file")
    if os.path.isdir(final) or (there and not stat.S_ISREG(os.stat(final).st_mode)):
        raise OutputError("out", f"{name} is no file", "give the name of a file")
    if not os.path.isdir(os.path.dirname(final)):
        raise OutputError("out", f"{name}: its folder does not exist", "create it first")
    if there and any(os.path.exists(one) and os.path.samefile(one, final) for one in read):
        raise OutputError("out", f"{name} is read as well", "choose another name")
    if there and not overwrite:
        raise OutputError(
            "out",
            f"{name} is there already",
            f"choose another name, or replace it with {option('overwrite')}",
        )


def write_calibration(path: str, calibration: dict[str, Any], overwrite: bool) -> None:
    """Write it as JSON: the old content or the new, no mixture. Raises OutputError."""
    final = os.path.realpath(path)
    data = json.dumps(calibration, indent=1, allow_nan=False).encode() + b"\n"
    try:
        durable.replace_file(durable.temporary_name(final), final, data, replace=overwrite)
    except FileExistsError:
        check_destination(path, overwrite=False, read=())
    except OSError as error:
        raise OutputError(
            "out", f"{option('out')} {path} cannot be written: {error.strerror or error}"
        ) from None
