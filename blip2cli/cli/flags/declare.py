"""How one option is declared: its panel in the help, and the variable that sets it as well."""

from __future__ import annotations

from typing import Any

import typer

from blip2cli.cli.flags.expand import environment, lines_from_environment

MODEL, DECODING, SOURCE, OUTPUT, REPORT = "Model", "Decoding", "Source", "Output", "Reporting"


def option(*names: str, panel: str, help: str, **more: Any) -> Any:  # noqa: A002 - Typer's word
    """A Typer option that also reads ``BLIP2CLI_<NAME>``, shown in its help."""
    variable = environment(next(name for name in names if name.startswith("--")))
    return typer.Option(*names, rich_help_panel=panel, help=help, envvar=variable, **more)


def lines(*names: str, panel: str, help: str, **more: Any) -> Any:  # noqa: A002 - Typer's word
    """A repeatable Typer option; its variable holds one value a line."""
    variable = environment(next(name for name in names if name.startswith("--")))
    return typer.Option(
        *names,
        rich_help_panel=panel,
        help=f"{help} \\[env var: {variable}, one a line]",
        callback=lines_from_environment(variable),
        show_default=False,
        **more,
    )
