"""An evaluation as lines of text."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from blip2cli.cli.terminal.run_summary import count_of

if TYPE_CHECKING:
    from blip2cli.evaluate.evaluation import Evaluation, Figure


def evaluation_lines(found: Evaluation) -> Iterator[str]:
    """What is printed of an evaluation."""
    about = f"{count_of(found.rows, 'row')} about {count_of(found.images)}"
    yield f"{about}; figures with 95 % intervals:"
    yield from figure_lines(found.figures)
    column = None
    for group in found.groups:
        if group.column != column:
            column = group.column
            yield f"by {column}:"
        figures = ", ".join(map(_in_line, group.figures))
        yield f"  {group.value} ({count_of(group.rows, 'row')}): {figures}"
    if found.differences:
        yield f"compared with, in {count_of(found.common, 'row')} that both have:"
        yield from figure_lines(found.other)
        yield "difference, ROWS minus those:"
        yield from figure_lines(found.differences, signed=True)


def figure_lines(figures: Sequence[Figure], signed: bool = False) -> Iterator[str]:
    """A line for each figure, in columns."""
    width = max((len(one.name) for one in figures), default=0)
    form = "+.4f" if signed else ".4f"
    for one in figures:
        yield (
            f"  {one.name:<{width}}  {format(one.value, form)}  "
            f"[{format(one.low, form)}, {format(one.high, form)}]"
        )


def _in_line(figure: Figure) -> str:
    return f"{figure.name} {figure.value:.4f} [{figure.low:.4f}, {figure.high:.4f}]"
