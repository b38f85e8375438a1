"""The option of JSON Schemas."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from blip2cli.options.declare import FORMAT, OptionGroup, setting

RowKind = Literal["caption", "ask", "embed", "embed-texts", "errors"]


@dataclass(frozen=True)
class SchemaOptions(OptionGroup):
    """Which rows are meant."""

    rows: RowKind = setting(
        "caption",
        "Which rows: those of caption, ask, embed, of embed without images (embed-texts), or of a "
        "list of failures (errors).",
        positional=True,
        metavar="ROWS",
        panel=FORMAT,
    )
