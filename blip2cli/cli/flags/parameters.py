"""Options as Typer knows them: a parameter made from each declaration."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Annotated, Any

import typer

from blip2cli.cli.flags.completed_line import shows_help
from blip2cli.cli.terminal.spelling import variable, with_flags
from blip2cli.errors import either
from blip2cli.options.declare import Declared, choices_of

CONTEXT = inspect.Parameter(
    "context", inspect.Parameter.POSITIONAL_OR_KEYWORD, annotation=typer.Context
)
FILLED = "blip2cli.filled"  # in the meta of a context: what a file gave, by option


@dataclass(frozen=True)
class Known:
    """An option of a command."""

    hint: Any  # its type
    default: Any
    declared: Declared


def parameter(
    name: str, hint: Any, default: Any, declared: Declared, required: bool, taken: Iterable[str]
) -> inspect.Parameter:
    """The parameter of the option ``name`` of type ``hint``.

    ``taken``: short flags that the command uses otherwise.
    """
    several = isinstance(default, tuple)
    kind = list[str] | None if several else str | None if declared.parse else hint
    if required:
        kind, default = (list[str] if several else hint), inspect.Parameter.empty
    elif several:
        default = None
    if declared.positional:
        more = typer.Argument(
            metavar=declared.metavar, help=help_text(declared.help), show_default=False
        )
    else:
        more = _option(name, declared, several, taken)
    return inspect.Parameter(
        name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=Annotated[kind, more]
    )


def value_of(declared: Declared, default: Any, given: Any) -> Any:
    """What Typer gives for an option, as the option's own type. Raises ``OptionError``."""
    if isinstance(default, tuple):
        return tuple(given or ())
    if declared.parse is not None and given is not None:
        return declared.parse(given)
    return given


def _option(name: str, declared: Declared, several: bool, taken: Iterable[str]) -> Any:
    long = declared.long_flag(name)
    names = [f"{long}/{declared.switch_off}" if declared.switch_off else long]
    if declared.short and declared.short not in taken:
        names.append(declared.short)
    more: dict[str, Any] = {"metavar": declared.metavar, "rich_help_panel": declared.panel}
    text = help_text(declared.help)
    if declared.default_help:
        text += f" \\[default: {declared.default_help}]"
    if declared.counted or declared.default_help:
        more["show_default"] = False
    if declared.counted:
        more["count"] = True
    if declared.minimum is not None and not declared.parse:
        more["min"] = declared.minimum
    if declared.offers or declared.columns_of:
        more["autocompletion"] = _offers(declared)
    if declared.presets is not None:
        more |= {"callback": _preset_callback(declared), "is_eager": True, "show_default": False}
    if several:
        # Typer itself splits a variable at blanks, which patterns and questions may hold.
        more |= {"callback": _lines_callback(variable(long)), "show_default": False}
        text += f" \\[env var: {variable(long)}, one a line]"
    else:
        more["envvar"] = variable(long)
    return typer.Option(*names, help=text, **more)


def help_text(text: str) -> str:
    """A text of a declaration, with flags, and the entries of the tables that it names."""
    if not shows_help():  # making them all takes half the time in which a line is completed
        return ""
    text = with_flags(text)
    if "_formats}" in text:
        from blip2cli.convert.format_table import FORMATS, READABLE

        write_only = ", ".join(one.name for one in FORMATS.values() if not one.readable)
        text = text.replace("{readable_formats}", ", ".join(READABLE))
        text = text.replace("{write_only_formats}", write_only)
    if "{output_suffixes}" in text:
        from blip2cli.sinks.format_table import suffixes

        text = text.replace("{output_suffixes}", either(suffixes()))
    if "{sources}" in text:
        from blip2cli.sources.readers import describe_sources

        text = text.replace("{sources}", describe_sources())
    return text


def brief_text(known: Known) -> str:
    """What the help on one screen says of an option, with its values and its default."""
    brief, default = known.declared.brief, known.default
    text = help_text(brief if isinstance(brief, str) else known.declared.help)
    text = text.replace("{choices}", ", ".join(choices_of(known.hint)))
    if default in (None, False, "", ()) or str(default) in text:
        return text
    return f"{text} [default: {default}]"


def _offers(declared: Declared) -> Callable[[typer.Context, str], list[str]]:
    """What a shell offers as values."""

    def offer(context: typer.Context, incomplete: str) -> list[str]:
        from blip2cli.cli.flags.offers import offered

        return offered(declared, context, incomplete)

    return offer


def _lines_callback(name: str) -> Callable[[list[str] | None], list[str]]:
    """Without values on the command line: the lines of the variable ``name``."""

    def fill(given: list[str] | None) -> list[str]:
        lines = os.environ.get(name, "").split("\n")
        return given or [line.removesuffix("\r") for line in lines if line.strip()]

    return fill


def _preset_callback(declared: Declared) -> Callable[[typer.Context, str | None], str | None]:
    """The preset's values stand where an option is neither typed nor in the environment."""

    def apply(context: typer.Context, name: str | None) -> str | None:
        if name is not None and declared.presets is not None:
            # What a file says wins over it, too.
            context.default_map = {**declared.presets[name], **(context.default_map or {})}
        return name

    return apply
