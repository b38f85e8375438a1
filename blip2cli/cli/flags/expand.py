"""Groups of options as dataclasses: one definition, shared by every command that takes them."""

from __future__ import annotations

import functools
import inspect
import os
from collections.abc import Callable
from dataclasses import MISSING, fields, is_dataclass
from typing import Any, get_type_hints

PREFIX = "BLIP2CLI_"


def environment(option: str) -> str:
    """The environment variable behind a long option: ``--max-new-tokens`` → ``BLIP2CLI_…``."""
    name = option.partition("/")[0]  # "--this/--no-this" is switched on by it
    return PREFIX + name.removeprefix("--").replace("-", "_").upper()


def lines_from_environment(variable: str) -> Callable[[list[str] | None], list[str]]:
    """A Typer callback: without values on the command line, take the lines of ``variable``.

    Typer itself splits such a variable at blanks, which patterns and questions may hold.
    """

    def fill(given: list[str] | None) -> list[str]:
        if given:
            return given
        return [line for line in os.environ.get(variable, "").splitlines() if line.strip()]

    return fill


def expand(command: Callable[..., int]) -> Callable[..., int]:
    """Let Typer see the fields of a command's dataclass parameters as parameters of its own.

    A field is declared as Typer declares a parameter: an ``Annotated`` type and a default.
    """
    hints = get_type_hints(command, include_extras=True)
    groups: dict[str, tuple[type, list[str]]] = {}
    parameters: list[inspect.Parameter] = []
    for name, parameter in inspect.signature(command).parameters.items():
        kind = hints[name]
        if not is_dataclass(kind):
            parameters.append(_keyword(name, hints[name], parameter.default))
            continue
        assert isinstance(kind, type)
        members = _members(kind)
        groups[name] = (kind, [field.name for field in fields(kind)])
        for field in fields(kind):
            default = inspect.Parameter.empty if field.default is MISSING else field.default
            parameters.append(_keyword(field.name, members[field.name], default))

    @functools.wraps(command)
    def run(**values: Any) -> int:
        built = {
            name: kind(**{member: values.pop(member) for member in members})
            for name, (kind, members) in groups.items()
        }
        return command(**built, **values)

    run.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
    run.__annotations__ = {parameter.name: parameter.annotation for parameter in parameters}
    # Typer would follow this back to the undecorated function and its annotations.
    del run.__wrapped__
    return run


@functools.cache
def _members(group: type) -> dict[str, Any]:
    """The annotated types of a group's fields; reading them takes a while, and commands share."""
    return get_type_hints(group, include_extras=True)


def _keyword(name: str, annotation: Any, default: Any) -> inspect.Parameter:
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=annotation
    )
