"""Rows as a table, for a person at a terminal."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, TextIO

from blip2cli.sinks.base import disk_errors
from blip2cli.storage.text_encoding import printable

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

_SHOWN = 4  # numbers of a vector, or choices, that are shown
_MIN_NAME = 24  # characters for file names, if they fit
# The same in every row, of no use to a reader, or shown with the text it is about.
_HIDDEN = ("kind", "question_id", "flag", "choice_scores", "guess")


class TableSink:
    """Prints every batch as it comes, its columns under those of the batch before.

    Widths are settled by the first batch: a table that waited for the last row would show
    nothing for as long as the run takes.
    """

    def __init__(
        self,
        columns: Sequence[str],
        stream: TextIO,
        paused: Callable[[], AbstractContextManager[None]],
        about: str = "file_name",
    ) -> None:
        """``about`` is the first column: what a row is about."""
        from rich.console import Console

        shown = (name for name in columns if name not in _HIDDEN and name != about)
        self._columns = (about, *shown)
        self._console: Console = Console(file=stream, highlight=False, soft_wrap=False)
        self._paused = paused
        self._widths: list[int] | None = None

    def write(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Print ``rows``, with the column names above the first ones."""
        from rich.table import Table
        from rich.text import Text

        if not rows:
            return
        cells = [[_cell(name, row) for name in self._columns] for row in rows]
        first = self._widths is None
        if self._widths is None:
            self._widths = _widths(self._columns, cells, self._console.width)
        table = Table(box=None, show_header=first, pad_edge=False, padding=(0, 2, 0, 0))
        for name, width in zip(self._columns, self._widths, strict=True):
            table.add_column(
                Text(printable(name)),
                width=width,
                overflow="fold",
                justify="right" if name in ("logprob", "choice_mass") else "left",
                header_style="bold",
                style="cyan" if name == self._columns[0] else "red" if name == "error" else "",
            )
        for row in cells:
            table.add_row(*row)
        with self._paused(), disk_errors("stdout", "rows before that were written"):
            self._console.print(table)

    def commit(self) -> None:
        """Printed rows cannot get lost."""

    def close(self) -> None:
        """Nothing is left open."""

    def abort(self) -> None:
        """Nothing is left open."""


def _cell(name: str, row: Mapping[str, object]) -> Text:
    """The text of one cell. Text, not markup: names and captions may hold brackets."""
    from rich.text import Text

    value = row.get(name)
    if value is None and name in ("caption", "answer"):
        value = row.get("guess")
    if value is None:
        return Text("")
    if name in ("caption", "answer") and row.get("flag"):
        return Text.assemble(printable(str(value)), (f" ({row['flag']})", "yellow"))
    if name == "probabilities" and isinstance(value, list):
        best = sorted(value, key=lambda c: -c["probability"])[:_SHOWN]
        more = "\n…" if len(value) > _SHOWN else ""
        lines = (f"{printable(c['choice'])} {c['probability']:.3f}" for c in best)
        return Text("\n".join(lines) + more)
    if name == "candidates" and isinstance(value, list):
        scored = ((c["text"], c.get("match", c["logprob"])) for c in value)
        return Text("\n".join(f"{printable(text)} ({score:.2f})" for text, score in scored))
    if name == "embedding":
        numbers = [float(x) for x in value[:_SHOWN]]  # type: ignore[index]
        size = len(value)  # type: ignore[arg-type]
        return Text(f"[{', '.join(f'{x:.3f}' for x in numbers)}, …] × {size}")
    if isinstance(value, float):
        return Text(f"{value:.3f}")
    return Text(printable(str(value)))


def _widths(names: Sequence[str], cells: Sequence[Sequence[Text]], total: int) -> list[int]:
    """Column widths for ``total`` characters: what the first batch needs, the widest cut first."""
    from rich.cells import cell_len

    needed = [
        max(
            cell_len(printable(name)),
            *(cell_len(line) for row in cells for line in row[i].plain.split("\n")),
        )
        for i, name in enumerate(names)
    ]
    available = max(total - 2 * (len(names) - 1), 8 * len(names))
    while sum(needed) > available:
        needed[needed.index(max(needed))] -= 1
    # Later batches may hold longer names than the first: some of the space left over is theirs.
    needed[0] += max(0, min(available - sum(needed), _MIN_NAME - needed[0]))
    return needed
