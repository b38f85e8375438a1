"""Mistakes on the command line, each as one sentence that names the remedy."""

from __future__ import annotations

import os
import re
from difflib import get_close_matches
from typing import Any

from blip2cli.errors import either


def usage_sentence(error: Any) -> str:
    """The sentence about a mistake that Typer's parser found, a ``typer.TyperException``.

    The parser's exception classes are private to Typer; the attributes read here are what tells
    them apart.
    """
    context: Any = getattr(error, "ctx", None)
    parameter: Any = getattr(error, "param", None)
    help_line = f"{context.command_path} --help" if context is not None else "blip2cli --help"
    if getattr(error, "possibilities", False) is not False:
        start = f"There is no option {error.option_name};"
        if error.possibilities:
            return f"{start} did you mean {either(error.possibilities[:2])}?"
        return f"{start} {help_line}-all lists them."
    command = re.match(r"No such command '(.*?)'", error.message, re.DOTALL)
    if command is not None:
        return _unknown_command(command[1], list(getattr(context.command, "commands", {})))
    if parameter is not None:
        return _bad_value(error, parameter, help_line)
    message = error.format_message().strip().rstrip(".")
    return f"{message}; see {help_line}."


def _unknown_command(wrong: str, commands: list[str]) -> str:
    close = get_close_matches(wrong, commands)
    if close:
        return f"There is no command {wrong!r}; did you mean {either(close)}?"
    if os.path.exists(wrong):
        return f"There is no command {wrong!r}; to caption it: blip2cli caption {wrong}"
    return f"There is no command {wrong!r}; choose {either(commands)}."


def _bad_value(error: Any, parameter: Any, help_line: str) -> str:
    name = max(parameter.opts, key=len)
    choices = getattr(parameter.type_descriptor, "choices", None)
    if not name.startswith("-") and choices:
        name = parameter.metavar or name
    elif not name.startswith("-"):
        return (
            "No source was given; name a folder, an image file, a glob, or - for paths on stdin "
            f"(see {help_line})."
        )
    if choices:
        # The value itself is only in the message, quoted.
        given = re.findall(r"'([^']*)'", error.message)
        close = get_close_matches(given[0], choices) if given else []
        wrong = f"{name} has no value {given[0]!r}" if given else f"{name} has other values"
        if close:
            return f"{wrong}; did you mean {either(close)}?"
        return f"{wrong}; choose {either(choices)}."
    variable = parameter.envvar if isinstance(parameter.envvar, str) else None
    also = f" (or {variable})" if variable and os.environ.get(variable) else ""
    message = error.message.strip().rstrip(".")
    return f"{name}{also}: {message[:1].lower()}{message[1:]}; see {help_line}."
