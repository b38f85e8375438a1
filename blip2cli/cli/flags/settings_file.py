"""Options from a TOML file: defaults where neither the command line nor a variable says anything.

Keys are the long flags without their dashes, with hyphens or underscores. Those at the top of the
file hold for every command that has the option, those in a table ``jobs.NAME`` for the job of that
name, which is one command's. Of a ``pyproject.toml`` the table ``tool.blip2cli`` is read.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from difflib import get_close_matches
from typing import Any, get_args

import typer

from blip2cli.cli.flags.parameters import FILLED, Known
from blip2cli.cli.flags.settings_table import COMMAND, JOBS, read_table
from blip2cli.cli.terminal.spelling import readable, variable
from blip2cli.errors import OptionError, either, option
from blip2cli.options import GROUPS, declarations
from blip2cli.options.declare import Declared, choices_of

_OF_FILE = {"config", "job"}  # options about such a file, which none holds
_NAMES = {str: "a text", bool: "true or false", int: "a whole number", float: "a number"}


def fill(
    context: typer.Context, path: str | None, job: str | None, options: Mapping[str, Known]
) -> None:
    """Make what the file at ``path`` says the defaults of ``options``. Raises OptionError."""
    if path is None:
        raise OptionError(
            "job", f"{option('job')} names a job of the file {option('config')}", "give that, too"
        )
    command = str(context.command.name)
    found = _values(path, job, command, options)
    for name in list(found):
        if os.environ.get(variable(options[name].declared.long_flag(name))):
            del found[name]
    context.meta[FILLED] = {name: place for name, (place, _) in found.items()}
    values = {name: value for name, (_, value) in found.items()}
    context.default_map = {**(context.default_map or {}), **values}


def print_origins(
    context: typer.Context, values: Mapping[str, Any], options: Mapping[str, Known]
) -> None:
    """Print every option that is not left at its default, and where its value comes from."""
    filled = context.meta[FILLED]
    print("settings:")
    for name, known in options.items():
        source = context.get_parameter_source(name)
        flag = known.declared.metavar if known.declared.positional else None
        flag = flag or known.declared.long_flag(name)
        if source is not None and source.name == "COMMANDLINE":
            origin = "command line"
        elif os.environ.get(variable(known.declared.long_flag(name))):
            origin = "environment"
        elif name in filled:
            origin = filled[name]
        elif source is not None and source.name == "DEFAULT_MAP":
            origin = "preset"
        else:
            continue
        value = values[name]
        shown = ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        print(readable(f"  {flag}: {shown} ({origin})"))


def _values(
    path: str, job: str | None, command: str, options: Mapping[str, Known]
) -> dict[str, tuple[str, Any]]:
    """The values of the options in the file, as Typer takes defaults, and where each stands. Raises
    OptionError."""
    table = read_table(path)
    jobs = table.pop(JOBS, {})
    if not isinstance(jobs, dict) or not all(isinstance(one, dict) for one in jobs.values()):
        raise OptionError(
            None, f"{path!r}: {JOBS} holds no tables", "write [jobs.NAME] before the options"
        )
    fields = {
        name: field
        for field, known in options.items()
        if field not in _OF_FILE
        for name in _names(field, known.declared)
    }
    every = {name for group in GROUPS for each in declarations(group) for name in _names(*each)}
    every -= _OF_FILE
    found: dict[str, tuple[str, Any]] = {}
    for place, own in [(path, table), *((f"{path}, job {name}", jobs[name]) for name in jobs)]:
        its = own.pop(COMMAND, None) if own is not table else None
        asked = own is table or (job is not None and own is jobs.get(job))
        for key, value in own.items():
            name = key.replace("-", "_")
            if name not in every:
                raise _unknown(place, key, sorted(every & fields.keys()), sorted(every))
            if asked and name in fields:
                field = fields[name]
                found[field] = place, _value(f"{place!r}: {key}", field, value, options[field])
            elif asked and own is not table:
                raise OptionError(
                    None, f"{place!r}: blip2cli {command} has no option {key}", "leave it out"
                )
        if asked and its not in (None, command):
            raise OptionError(
                None, f"{place!r} is a job for blip2cli {its}", f"it is blip2cli {command} here"
            )
    if job is not None and job not in jobs:
        close = get_close_matches(job, jobs, 1)
        others = f"it has {either(list(jobs))}" if jobs else "it has none"
        remedy = f"did you mean {close[0]}?" if close else others
        raise OptionError("job", f"{path!r} has no job {job!r}", remedy)
    return found


def _names(field: str, declared: Declared) -> Iterator[str]:
    """What a key of the file may be called that gives the option ``field``."""
    yield field
    if declared.positional:
        yield str(declared.metavar).strip(".").lower()
    else:
        yield declared.long_flag(field).removeprefix("--").replace("-", "_")


def _value(place: str, field: str, value: Any, known: Known) -> Any:
    """``value``, checked, as Typer takes it. Raises OptionError."""
    declared = known.declared
    if isinstance(known.default, tuple):
        several = value if isinstance(value, list) else [value]
        return [_text(place, one) for one in several]
    choices = choices_of(known.hint)
    if declared.parse is not None or choices:
        value = _text(place, value)
        if choices and value not in choices:
            close = get_close_matches(value, choices, 1)
            remedy = f"did you mean {close[0]}?" if close else f"choose {either(choices)}"
            raise OptionError(None, f"{place} has no value {value!r}", remedy)
        try:
            if declared.parse is not None:
                declared.parse(value)
        except OptionError as error:
            raise OptionError(None, f"{place}: {error.problem}", error.remedy) from None
        return value
    kind = next(one for one in (known.hint, *get_args(known.hint)) if one in _NAMES)
    fits = isinstance(value, int | float) if kind is float else isinstance(value, kind)
    if not fits or (isinstance(value, bool) and kind is not bool):
        raise OptionError(None, f"{place} is {value!r}, not {_NAMES[kind]}", "write it so")
    if declared.minimum is not None and value < declared.minimum:
        raise OptionError(None, f"{place} must be at least {declared.minimum:g}, not {value}", "")
    return value


def _text(place: str, value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise OptionError(None, f"{place} is {value!r}, not a text", "write it in quotes")
    return str(value)


def _unknown(place: str, key: str, likely: list[str], every: list[str]) -> OptionError:
    name = key.replace("-", "_")
    close = get_close_matches(name, likely, 1) or get_close_matches(name, every, 1)
    remedy = f"did you mean {close[0]}?" if close else "the help of each command lists its options"
    return OptionError(None, f"{place!r}: there is no option {key}", remedy)
