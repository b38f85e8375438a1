"""A TOML file of options as it stands there, with its jobs; see ``settings_file``."""

from __future__ import annotations

import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blip2cli.errors import OptionError, option

JOBS, COMMAND = "jobs", "command"  # the table of jobs, and in one of them the command it is for


def read_table(path: str) -> dict[str, Any]:
    """The options of a file, and its jobs. Raises OptionError."""
    try:
        with open(path, "rb") as file:
            table = tomllib.load(file)
    except OSError as error:
        problem = f"{option('config')} {path!r} cannot be read ({error.strerror})"
        raise OptionError("config", problem, "check the path") from None
    except ValueError as error:  # also of bytes that are not UTF-8
        problem = f"{option('config')} {path!r} is no TOML ({error})"
        raise OptionError("config", problem, "correct it") from None
    if Path(path).name != "pyproject.toml":
        return table
    own = table.get("tool", {}).get("blip2cli")
    if not isinstance(own, dict):
        raise OptionError(
            None, f"{path!r} has no table tool.blip2cli", "write the options into one"
        )
    return own


def jobs_of(path: str, command: str) -> Iterator[str]:
    """The jobs in the file at ``path`` that ``command`` can do. Raises OptionError."""
    for name, job in read_table(path).get(JOBS, {}).items():
        if job.get(COMMAND, command) == command:
            yield name
