"""Counts of things with a few examples, for notes to the user."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass
class Examples:
    """A count, and the first few of what is counted."""

    count: int = 0
    first: list[str] = field(default_factory=list)

    def add(self, name: object) -> None:
        self.count += 1
        if len(self.first) < 3:
            self.first.append(str(name))

    def __str__(self) -> str:
        """``a, b, c and 5 more``."""
        return listed(self.first, self.count)


class LeftOut(Examples):
    """Rows that a format has no place for."""

    def notes(self, what: str = "a text (failed images)") -> list[str]:
        """A note that they were left out as they have no ``what``; none if there are no such."""
        return [f"Left out {self.count} without {what}: {self}."] if self.count else []


def listed(names: Sequence[object], count: int | None = None) -> str:
    """The first three names, and how many more there are."""
    shown = [str(name) for name in names[:3]]
    more = (len(names) if count is None else count) - len(shown)
    return ", ".join(shown) + (f" and {more} more" if more > 0 else "")
