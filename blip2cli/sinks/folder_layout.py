"""The files of a folder output: their names, and which rows they hold.

Visible parts are called ``part-00000.parquet`` and so on. All hold the same number of rows, but for
the last one of a finished output, which has fewer. What is not enough for a part yet stands in
hidden files, called ``rows-TOKEN-START-COUNT``: by the output's token, the number of their first
row in the output, and how many rows they have. So names tell which rows are where:

- a hidden file all of whose rows are in visible parts is left over, as by a crash between the two;
- of one that visible parts hold the first rows of, the others count. Rows are committed by whole
  images, a part may end within one: its other rows are in such a file, and no crash parts them;
- where rows are missing between two files, somebody removed one: no crash leaves that;
- a hidden file with another token is of another run.

An output that is to be overwritten stays visible until the first new part is complete. Until then
the settings say that visible parts are replaced (``replaces``), and only hidden files count.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import islice

VISIBLE = re.compile(r"part-(\d{5,})\.parquet")
HIDDEN = re.compile(r"rows-([0-9a-f]{8})-(\d{12})-(\d+)")
LONGEST_ENDING = len("..rows-00000000-000000000000-00000000")  # of a hidden file's name
ROWS_PER_PART = 100_000


class LayoutError(OSError):
    """The files are not those that a run, or a crash, leaves. ``sound`` rows come before that."""

    def __init__(self, problem: str, sound: int = 0) -> None:
        super().__init__(problem)
        self.sound = sound


def part_name(number: int) -> str:
    """The name of a visible part."""
    return f"part-{number:05d}.parquet"


def short_token(token: str) -> str:
    """What stands of an output's token in names."""
    return token[:8].rjust(8, "0")


@dataclass(frozen=True)
class Piece:
    """Some rows of the output in one file: those from ``start`` to ``end``, of which the first is
    row ``skip`` of the file."""

    name: str
    start: int
    end: int
    skip: int = 0


@dataclass(frozen=True)
class HiddenRows:
    """A hidden file, as its name tells it."""

    token: str
    start: int
    count: int

    @classmethod
    def of(cls, name: str) -> HiddenRows | None:
        """None for a name that is none of a hidden file."""
        match = HIDDEN.fullmatch(name)
        return cls(match[1], int(match[2]), int(match[3])) if match else None

    @property
    def name(self) -> str:
        """The name of the file."""
        return f"rows-{self.token}-{self.start:012d}-{self.count}"

    @property
    def end(self) -> int:
        """The row behind its last one."""
        return self.start + self.count


@dataclass(frozen=True)
class Layout:
    """Which rows of an output are in which files. ``part_rows`` is what a full part holds."""

    part_rows: int
    token: str  # as it stands in names
    parts: tuple[str, ...] = ()  # the visible ones, in order
    visible: int = 0  # the number of rows in them
    hidden: tuple[HiddenRows, ...] = ()  # with rows behind the visible ones, in order
    leftovers: tuple[str, ...] = ()  # hidden files whose rows are visible, or of other outputs
    older: tuple[str, ...] = ()  # visible parts that are to be replaced

    @property
    def rows(self) -> int:
        """All rows."""
        return self.hidden[-1].end if self.hidden else self.visible

    @property
    def next_part(self) -> int:
        """The number of the part that is not there yet, or not full."""
        return self.visible // self.part_rows

    def pieces(self) -> Iterator[Piece]:
        """All files with rows of the output, in order."""
        for number, name in enumerate(self.parts):
            start = number * self.part_rows
            yield Piece(name, start, min(start + self.part_rows, self.visible))
        for one in self.hidden:
            start = max(one.start, self.visible)
            yield Piece(one.name, start, one.end, start - one.start)

    def between(self, start: int, end: int) -> Iterator[Piece]:
        """The pieces with these rows, cut to them."""
        for piece in self.pieces():
            first, last = max(start, piece.start), min(end, piece.end)
            if first < last:
                yield Piece(piece.name, first, last, piece.skip + first - piece.start)

    def with_hidden(self, count: int) -> Layout:
        """After ``count`` more rows were put into a hidden file."""
        return replace(self, hidden=(*self.hidden, HiddenRows(self.token, self.rows, count)))

    def with_part(self, end: int) -> Layout:
        """After the next part was put in place, with the rows up to ``end``."""
        parts = (*self.parts[: self.next_part], part_name(self.next_part))
        covered = tuple(one.name for one in self.hidden if one.end <= end)
        return replace(
            self,
            older=(),
            parts=parts,
            visible=end,
            hidden=self.hidden[len(covered) :],
            leftovers=(*self.leftovers, *covered),
        )


def layout_of(
    names: Iterable[str],
    part_rows: int,
    token: str,
    count_rows: Callable[[str], int],
    replaces: bool = False,
) -> Layout:
    """The layout of the files with these names. ``replaces``: visible ones are of an older output.

    ``count_rows`` gives the number of rows of a visible part. Raises LayoutError.
    """
    names = list(names)
    parts = tuple(sorted((n for n in names if VISIBLE.fullmatch(n)), key=_number))
    token = short_token(token)
    if replaces:
        layout = Layout(part_rows, token, older=parts)
    else:
        _check_gaps(parts, part_rows)
        last = count_rows(parts[-1]) if parts else 0
        if last > part_rows:
            raise LayoutError(f"its part {parts[-1]!r} has {last} rows, not {part_rows}")
        layout = Layout(part_rows, token, parts, max(0, len(parts) - 1) * part_rows + last)
    every = [one for one in map(HiddenRows.of, names) if one is not None]
    ours = sorted((one for one in every if one.token == token), key=lambda one: one.start)
    hidden: list[HiddenRows] = []
    leftovers = [one.name for one in every if one.token != token]
    reached = layout.visible
    for one in ours:
        if one.end <= layout.visible:
            leftovers.append(one.name)
        elif one.start > reached:
            raise LayoutError(f"its rows {reached + 1} to {one.start} are missing")
        elif hidden and one.start < reached:
            raise LayoutError(f"its rows from {one.start + 1} on are there twice")
        else:
            hidden.append(one)
            reached = one.end
    return replace(layout, hidden=tuple(hidden), leftovers=tuple(leftovers))


def readable_pieces(
    names: Iterable[str], part_rows: int, count_rows: Callable[[str], int], replaces: bool
) -> list[Piece]:
    """Every file of a damaged output, in order; files between them may be missing.

    Hidden files of any token count, since settings may be missing. ``count_rows`` gives the number
    of rows of a visible part, or raises LayoutError. ``replaces``: as above.
    """
    names = list(names)
    parts = sorted((n for n in names if VISIBLE.fullmatch(n) and not replaces), key=_number)
    pieces = []
    for name in parts:
        start = _number(name) * part_rows
        try:
            pieces.append(Piece(name, start, start + count_rows(name)))
        except LayoutError:
            pieces.append(Piece(name, start, start))  # hidden files may have its rows
    every = [one for one in map(HiddenRows.of, names) if one is not None]
    visible = pieces[-1].end if pieces else 0
    for one in sorted(every, key=lambda one: one.start):
        if one.end > visible:
            start = max(one.start, visible)
            pieces.append(Piece(one.name, start, one.end, start - one.start))
    return pieces


def _check_gaps(parts: Sequence[str], part_rows: int) -> None:
    """Raise LayoutError, which names up to ten, where a part before the last is not there."""
    here = set(parts)
    if all(map(here.__contains__, map(part_name, range(len(parts))))):
        return
    places = range(_number(parts[-1]) + 1)  # a name may hold any number: not all are looked at
    missing = list(islice((n for n in places if part_name(n) not in here), 10))
    if not missing:
        twice = next(name for name in parts if name != part_name(_number(name)))
        raise LayoutError(f"its part {twice!r} is there under two names")
    names = ", ".join(repr(part_name(number)) for number in missing)
    more = len(places) - len(parts) - len(missing)
    if more > 0:
        names += f" and {more} more"
    one = len(missing) == 1
    problem = f"its part {names} is missing" if one else f"its parts {names} are missing"
    raise LayoutError(problem, missing[0] * part_rows)


def _number(name: str) -> int:
    match = VISIBLE.fullmatch(name)
    assert match is not None
    return int(match[1])
