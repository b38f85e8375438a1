"""What is known of one output that was verified."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Literal

import pyarrow as pa
import pyarrow.types as kinds

from blip2cli import exit_codes
from blip2cli.convert.arrow_json import json_lines
from blip2cli.convert.examples import Examples
from blip2cli.sinks.settings import Settings
from blip2cli.sources.shard import Shard
from blip2cli.storage.hash_set import HashSet
from blip2cli.storage.text_encoding import from_utf8

_CODES = {
    "sound": exit_codes.SUCCESS,
    "damaged": exit_codes.RUN_FAILED,
    "unreadable": exit_codes.WRONG_INPUT,
}
_SHOWN = 3  # problems


@dataclass
class Finding:
    """The state of one output, the number of its sound rows, and what is wrong with it."""

    path: str
    kind: str | None = None  # its format
    state: Literal["sound", "damaged", "unreadable"] = "sound"
    rows: int = 0  # that are sound
    sound_until: int | None = None  # rows before the first damage
    problems: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """That of the command, if there is no worse finding."""
        return _CODES[self.state]

    def damage(self, problem: str, sound_until: int | None = None) -> None:
        """Something is wrong behind the row ``sound_until``, by default the last one so far."""
        self.state = "damaged"
        self.problems.append(problem)
        if self.sound_until is None:
            self.sound_until = self.rows if sound_until is None else sound_until

    def incomplete(self, problem: str) -> None:
        """Something is missing in a set of outputs."""
        self.state = "damaged"
        self.problems.append(problem)

    def unreadable(self, problem: str) -> None:
        """It cannot be read."""
        self.state = "unreadable"
        self.problems.append(problem)

    def __str__(self) -> str:
        rows = "1 row" if self.rows == 1 else f"{self.rows} rows"
        more = len(self.problems) - _SHOWN
        problems = "; ".join(self.problems[:_SHOWN]) + (f"; {more} more" if more > 0 else "")
        if self.state == "unreadable":
            return f"cannot be read: {problems}"
        if self.state == "sound":
            return "; ".join([f"sound, {rows}", *self.notes])
        if self.sound_until is None:
            return f"not complete: {problems}"
        until = f"sound up to row {self.sound_until}, {rows} in all"
        return "; ".join([f"damaged: {problems}", until, *self.notes])


class RowCheck:
    """Counts the rows of one output, and finds those that are in it twice."""

    def __init__(self, finding: Finding) -> None:
        self._finding = finding
        self._seen = HashSet()
        self._twice = Examples()
        self._last = ""  # the image of the last rows, and how many of them there are
        self._count = 0
        self._counts: dict[int, str] = {}  # numbers of rows an image has, with an example
        self._others = Examples()  # images of other shares
        self.shard: Shard | None = None  # that all images belong to
        finding.rows = 0

    def add(self, batches: Iterable[pa.RecordBatch | None]) -> None:
        """Take rows; None stands for what is damaged."""
        for batch in batches:
            if batch is None:
                continue
            self._finding.rows += batch.num_rows
            if "file_name" in batch.schema.names:
                names = [str(name) for name in batch.column("file_name").to_pylist()]
                small = [f.name for f in batch.schema if not kinds.is_fixed_size_list(f.type)]
                lines = json_lines(batch.select(small)).to_pylist()
                for name, line in zip(names, lines, strict=True):
                    if not self._seen.add(line):
                        self._twice.add(name)
                    if name != self._last:
                        self._counts[self._count] = self._last
                        self._last, self._count = name, 0
                        if self.shard is not None and not self.shard.takes(from_utf8(name)):
                            self._others.add(name)
                    self._count += 1

    def end(self, settings: Settings | None = None) -> None:
        """All rows were added. With the ``settings`` it is known how many an image has."""
        self._counts[self._count] = self._last
        questions = settings.rows.get("question") if settings is not None else None
        if isinstance(questions, list) and questions and self._finding.state == "sound":
            for count, name in self._counts.items():
                if count % len(questions):
                    self._finding.damage(f"{name} has {count} of {len(questions)} rows")
        if self._others.count:
            self._finding.damage(f"images of other shares are in it: {self._others}")
        if self._twice.count:
            rows = "1 row is" if self._twice.count == 1 else f"{self._twice.count} rows are"
            self._finding.damage(f"{rows} in it twice, such as {self._twice}")
