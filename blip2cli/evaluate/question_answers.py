"""Whether a file of questions holds the answers as well."""

from __future__ import annotations

from blip2cli.errors import OptionError
from blip2cli.tasks.text_files import TABLE_SUFFIXES, TextFile

COLUMNS = ("answer", "answers")


def answer_column(path: str) -> str | None:
    """The column of answers in the table of questions ``path``; None where there is none.

    Of JSON Lines the first row tells.
    """
    file = TextFile("questions", path)
    if file.suffix not in TABLE_SUFFIXES:
        return None
    try:
        columns = file.columns()
        if columns is None:
            columns = list(next((row for _, row in file.table()), ()))
    except OptionError:
        return None
    return next((name for name in COLUMNS if name in columns), None)
