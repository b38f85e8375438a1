"""A command's function, as Typer calls it: options in, exit code out.

A command is a function of option groups (see ``blip2cli.options``). Typer sees their options as
parameters; what the function raises becomes one sentence on stderr and an exit code.
"""

from __future__ import annotations

import functools
import inspect
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, fields
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import typer

from blip2cli.cli.flags.parameters import CONTEXT, FILLED, Known, parameter, value_of
from blip2cli.cli.flags.short_help import HELP_ALL
from blip2cli.cli.terminal.error_messages import complain, unexpected
from blip2cli.cli.terminal.spelling import sentence
from blip2cli.errors import Blip2CliError
from blip2cli.exit_codes import BROKEN_PIPE
from blip2cli.options import ConfigOptions, OptionGroup, ReportOptions, VerbosityOptions
from blip2cli.options.declare import PANELS, Declared


@dataclass(frozen=True)
class Required:
    """Marks a group whose options ``names`` must be given: ``Annotated[Group, Required(...)]``."""

    names: tuple[str, ...]


@dataclass(frozen=True)
class Without:
    """Marks a group that a command takes without these options or short flags."""

    names: tuple[str, ...]


def command(function: Callable[..., int]) -> Callable[..., int]:
    """Let Typer see the options of the groups that ``function`` takes as parameters of its own.

    What comes back also has them as ``options``, by name, for the help on one screen.
    """
    groups: dict[str, Any] = {}
    parameters: dict[str, inspect.Parameter] = {}
    found: dict[str, Known] = {}

    def add(group: type[OptionGroup], required: Collection[str], without: Collection[str]) -> None:
        hints = get_type_hints(group)
        for field in fields(group):  # type: ignore[arg-type] # a dataclass
            name, declared = field.name, field.metadata[Declared]
            if name not in without and name not in parameters:
                found[name] = Known(hints[name], field.default, declared)
                more = hints[name], field.default, declared, name in required, without
                parameters[name] = parameter(name, *more)

    add(ConfigOptions, (), ())
    _fill_from_file(parameters, found)
    for argument, hint in get_type_hints(function, include_extras=True).items():
        if argument == "return":
            continue
        marked = get_args(hint) if get_origin(hint) is Annotated else (hint,)
        kind, marks = marked[0], marked[1:]
        required = {name for mark in marks if isinstance(mark, Required) for name in mark.names}
        without = {name for mark in marks if isinstance(mark, Without) for name in mark.names}
        groups[argument] = kind, without
        for group in _groups(kind):
            add(group, required, without)

    @functools.wraps(function)
    def run(context: typer.Context, **values: Any) -> int:
        report: VerbosityOptions = ReportOptions()
        try:
            for kind, without in groups.values():
                if issubclass(kind, VerbosityOptions):
                    report = _build(kind, values, without)
            code = function(
                **{name: _build(kind, values, without) for name, (kind, without) in groups.items()}
            )
            if values.get("dry_run") and context.meta.get(FILLED):
                from blip2cli.cli.flags.settings_file import print_origins

                print_origins(context, values, found)
            return code
        except Blip2CliError as error:
            _report(error, report)
            return error.exit_code
        except BrokenPipeError:
            # Nobody reads stdout any more: what is still buffered goes nowhere, without a message.
            nowhere = os.open(os.devnull, os.O_WRONLY)
            os.dup2(nowhere, sys.stdout.fileno())
            os.close(nowhere)
            return BROKEN_PIPE
        except Exception as error:  # noqa: BLE001 - a traceback helps nobody but us
            return unexpected(error, report.verbose)

    ordered = sorted(parameters, key=lambda name: PANELS.index(found[name].declared.panel))
    signature = inspect.Signature([CONTEXT, *(parameters[name] for name in ordered), HELP_ALL])
    run.__signature__ = signature  # type: ignore[attr-defined]
    run.options = found  # type: ignore[attr-defined]
    run.__annotations__ = {name: each.annotation for name, each in signature.parameters.items()}
    # Typer would follow this back to the undecorated function and its annotations.
    del run.__wrapped__
    return run


def _fill_from_file(
    parameters: Mapping[str, inspect.Parameter], options: Mapping[str, Known]
) -> None:
    """Let ``config`` and ``job`` give the other ``options`` of a command their defaults."""
    given: dict[str, str | None] = {}

    def noting(name: str) -> Callable[[typer.Context, str | None], str | None]:
        def note(context: typer.Context, value: str | None) -> str | None:
            given[name] = value
            if len(given) == 2:
                path, job = given.pop("config"), given.pop("job")
                if path is not None or job is not None:
                    from blip2cli.cli.flags.settings_file import fill

                    fill(context, path, job, options)
            return value

        return note

    for name in ("config", "job"):
        information = get_args(parameters[name].annotation)[1]
        information.callback, information.is_eager = noting(name), True


def _groups(kind: type) -> Iterator[type[OptionGroup]]:
    """The groups of a parameter: itself, or the fields of a dataclass of groups."""
    if issubclass(kind, OptionGroup):
        yield kind
    else:
        yield from get_type_hints(kind).values()


def _build(kind: type, values: dict[str, Any], without: set[str]) -> Any:
    if not issubclass(kind, OptionGroup):
        parts = get_type_hints(kind)
        return kind(**{name: _build(group, values, without) for name, group in parts.items()})
    return kind(
        **{
            field.name: value_of(field.metadata[Declared], field.default, values[field.name])
            for field in fields(kind)  # type: ignore[arg-type] # a dataclass
            if field.name not in without
        }
    )


def _report(error: Blip2CliError, report: VerbosityOptions) -> None:
    if isinstance(report, ReportOptions) and report.log_json:
        from blip2cli.cli.terminal.log_json import JsonLog

        JsonLog(sys.stderr).error(sentence(error), error.exit_code)
    else:
        complain(sentence(error))
