"""The options that say which columns hold texts and ids: of conversions, and of evaluations."""

from __future__ import annotations

from dataclasses import dataclass

from blip2cli.options.declare import IDS, TEXTS, OptionGroup, setting


@dataclass(frozen=True, kw_only=True)
class ColumnOptions(OptionGroup):
    """Where the texts and ids of rows are."""

    text_column: str | None = setting(
        None,
        "The column of texts.",
        panel=TEXTS,
        metavar="NAME",
        default_help="caption, or answer in results of ask",
    )
    id_column: str | None = setting(
        None,
        "The column that holds the ids.",
        panel=IDS,
        metavar="NAME",
        default_help="the last number in file_name; of answers question_id",
    )
    id_map: str | None = setting(
        None,
        "Ids of file names: a JSON object, a CSV table with file_name and id, or COCO annotations.",
        panel=IDS,
        metavar="FILE",
    )
