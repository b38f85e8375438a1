"""The options that say which columns hold texts and ids: of conversions, and of evaluations."""

from __future__ import annotations

from dataclasses import dataclass

from blip2cli.options.declare import IDS, SOURCE, TEXTS, OptionGroup, setting


@dataclass(frozen=True, kw_only=True)
class ColumnOptions(OptionGroup):
    """Where the texts and ids of rows are."""

    text_column: str | None = setting(
        None,
        "The column of texts.",
        panel=TEXTS,
        metavar="NAME",
        default_help="caption, or answer in results of ask",
        brief=True,
        columns_of=("rows", "sources"),
    )
    id_column: str | None = setting(
        None,
        "The column that holds the ids.",
        panel=IDS,
        metavar="NAME",
        default_help="the last number in file_name; of answers question_id",
        columns_of=("rows", "sources"),
    )
    id_map: str | None = setting(
        None,
        "Ids of file names: a JSON object, a CSV table with file_name and id, or COCO annotations.",
        panel=IDS,
        metavar="FILE",
    )


@dataclass(frozen=True, kw_only=True)
class ReferenceOptions(ColumnOptions):
    """What the texts of rows are compared with."""

    against: str | None = setting(
        None,
        "References: COCO caption annotations, VQA annotations, verdicts of a page, or a table "
        "with file_name (and question or question_id) and a text or a list of texts.",
        panel=SOURCE,
        metavar="FILE",
        brief="COCO or VQA annotations, verdicts of a page, or a table.",
    )
    reference_column: str | None = setting(
        None,
        "The column of texts in a table of references.",
        panel=TEXTS,
        metavar="NAME",
        default_help="caption, reference, text or answer, or their plurals",
        columns_of=("against",),
    )
