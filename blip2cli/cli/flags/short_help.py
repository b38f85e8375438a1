"""The help on one screen: what is needed first, examples, and where the rest is.

It is plain text and needs no library; the long help, with every option in its panel, is Typer's.
"""

from __future__ import annotations

import inspect
import sys
from collections.abc import Mapping
from typing import Annotated, Any

import typer
from typer.core import TyperCommand, TyperGroup, TyperOption

from blip2cli.cli.terminal.error_messages import coloured

_LONG = "blip2cli.long_help"  # in the meta of a context: every option is asked for

Rows = dict[str, list[tuple[str, str]]]  # what is listed and what it is, by heading


def _show_long(context: typer.Context, wanted: bool) -> None:
    if wanted and not context.resilient_parsing:
        context.meta[_LONG] = True
        print(context.get_help())  # panels are printed while they are made
        raise typer.Exit


HelpAll = Annotated[
    bool,
    typer.Option(
        "--help-all",
        help="Show every option and exit.",
        callback=_show_long,
        is_eager=True,
        expose_value=False,
    ),
]
HELP_ALL = inspect.Parameter(
    "help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=HelpAll
)


class _Unchecked:
    """A type of values that takes them as they are."""

    @staticmethod
    def coerce(value: Any, param: Any, ctx: Any) -> Any:
        return value


def _leave_unchecked(command: Any, ctx: Any) -> None:
    """Let values pass: pydantic, by which Typer judges them, takes long to import."""
    for parameter in command.get_params(ctx):
        parameter.get_runtime_param = lambda: _Unchecked


class ShortHelpCommand(TyperCommand):
    """A command whose help lists the options that are declared with ``brief``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        if ctx.resilient_parsing:  # a shell completes the line
            _leave_unchecked(self, ctx)
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        if ctx.meta.get(_LONG):
            super().format_help(ctx, formatter)
            return
        from blip2cli.cli.flags.parameters import brief_text

        options: Mapping[str, Any] = getattr(self.callback, "options", {})  # noted by ``command``
        rows: Rows = {}
        for parameter in sorted(self.params, key=lambda each: isinstance(each, TyperOption)):
            known = options.get(str(parameter.name))
            if known is not None and known.declared.brief:
                text = brief_text(known)
                rows.setdefault(known.declared.panel, []).append((_flags(parameter), text))
        count = sum(isinstance(each, TyperOption) for each in self.get_params(ctx))
        last = f"{ctx.command_path} --help-all shows all {count} options, with their variables."
        _write(self, ctx, formatter, rows, last)


class ShortHelpGroup(TyperGroup):
    """The program itself: its help lists the commands, and is short."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        _leave_unchecked(self, ctx)  # it has only flags, whose values need no check
        return super().parse_args(ctx, args)

    def format_help(self, ctx: Any, formatter: Any) -> None:
        if ctx.meta.get(_LONG):
            super().format_help(ctx, formatter)
            return
        rows: Rows = {
            "Commands": [
                (name, _paragraph(str(each.help))) for name, each in self.commands.items()
            ],
            "Options": [(_flags(each), getattr(each, "help", "")) for each in self.get_params(ctx)],
        }
        last = f"{ctx.command_path} COMMAND --help shows what is needed first, --help-all the rest."
        _write(self, ctx, formatter, rows, last, apart=True)


def _write(
    command: Any, ctx: Any, formatter: Any, rows: Rows, last: str, apart: bool = False
) -> None:
    """Write a short help: usage, what ``command`` does, ``rows``, examples, and the ``last`` line.

    All names stand in a column of one width; ``apart``: those of each heading in their own.
    """
    bright = coloured(sys.stdout)
    widths = {heading: max(len(first) for first, _ in rows[heading]) for heading in rows}
    command.format_usage(ctx, formatter)
    formatter.write_paragraph()
    formatter.write_text(_paragraph(command.help))
    formatter.write_paragraph()
    for heading, listed in rows.items():
        formatter.write(typer.style(heading, bold=True) if bright else heading)
        formatter.write("\n")
        formatter.indent()
        width = widths[heading] if apart else max(widths.values())
        names = [first.ljust(width) for first, _ in listed]
        shown = [typer.style(name, fg="cyan") if bright else name for name in names]
        formatter.write_dl([*zip(shown, (text for _, text in listed), strict=True)], width)
        formatter.dedent()
    formatter.write_paragraph()
    formatter.write(f"{command.epilog}\n")
    formatter.write_paragraph()
    formatter.write_text(last)


def _flags(parameter: Any) -> str:
    """``-o, --output OUT`` of an option; an argument as the help calls it."""
    if not parameter.opts[0].startswith("-"):
        return str(parameter.metavar)
    flags = ", ".join(sorted(parameter.opts, key=len))
    return f"{flags} {value_name(parameter)}".rstrip()


def value_name(option: Any) -> str:
    """What the help calls the value of an option; empty for a flag, which has none."""
    if option.is_flag or option.count:
        return ""
    return str(option.metavar or option.name.rpartition("_")[2].upper())


def _paragraph(text: str) -> str:
    """The first paragraph of a help text, on one line."""
    return " ".join(text.split("\n\n")[0].split())
