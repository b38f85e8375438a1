"""The options about a file of options."""

from __future__ import annotations

from dataclasses import dataclass

from blip2cli.errors import option
from blip2cli.options.declare import SETTINGS, OptionGroup, setting


@dataclass(frozen=True)
class ConfigOptions(OptionGroup):
    """Which file gives options other defaults; every command takes it."""

    config: str | None = setting(
        None,
        "A TOML file of options, such as num_beams = 5; of a pyproject.toml the table "
        "tool.blip2cli. The command line and variables win over it.",
        panel=SETTINGS,
        metavar="FILE",
    )
    job: str | None = setting(
        None,
        f"Also the options in the table jobs.NAME of {option('config')}, which win over the "
        "others there.",
        panel=SETTINGS,
        metavar="NAME",
    )
