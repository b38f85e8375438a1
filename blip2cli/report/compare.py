"""Two outputs side by side: the rows of the second beside those of the first."""

from __future__ import annotations

from collections import Counter
from typing import Any

from blip2cli.report.rows import PageRows
from blip2cli.storage.hash_set import OCCURRENCE

# Columns of the second output that the page shows beside those of the first.
_BESIDE = (
    "text", "guess", "confidence", "logprob", "flag", "error_type", "error", "score",
)  # fmt: skip
_SHARED = ("file_name", "question", "question_id", OCCURRENCE)
BOTH, FIRST, SECOND = 0, 1, 2  # in which of the outputs a row is


def add_second(first: PageRows, second: PageRows) -> tuple[str, ...]:
    """Add the columns ``other_…`` and ``side`` to ``first``; returns notes.

    Rows belong together by image and question. What only the second has follows at the end.
    """
    at = {key: row for row, key in enumerate(_keys(second))}
    rows = [at.pop(key, None) for key in _keys(first)]
    columns = first.columns
    for name in _BESIDE:
        theirs = second.columns.get(name)
        columns[f"other_{name}"] = [
            None if row is None or theirs is None else theirs[row] for row in rows
        ]
    columns["side"] = [FIRST if row is None else BOTH for row in rows]
    left = [] if first.cut else list(at.values())
    for row in left:
        for name, values in columns.items():
            values.append(_value(second, name, row))
        for values in first.extra.values():
            values.append(None)
    notes = []
    unmatched = sum(row is None for row in rows)
    if unmatched:
        notes.append(f"{unmatched} rows are only in the first output.")
    if left:
        notes.append(f"{len(left)} rows are only in the second output.")
    return tuple(notes)


def _value(second: PageRows, name: str, row: int) -> Any:
    if name == "side":
        return SECOND
    source = name.removeprefix("other_") if name.startswith("other_") else name
    if source == name and name not in _SHARED:
        return None
    values = second.columns.get(source)
    return None if values is None else values[row]


def _keys(rows: PageRows) -> list[tuple[Any, ...]]:
    """Image and question of each row; of rows about the same, their order."""
    seen: Counter[tuple[Any, ...]] = Counter()
    keys = []
    columns = rows.columns
    for name, question, identifier, occurrence in zip(
        *(columns[column] for column in _SHARED), strict=True
    ):
        key = (name, question if question is not None else identifier, occurrence)
        keys.append((*key, seen[key]))
        seen[key] += 1
    return keys
