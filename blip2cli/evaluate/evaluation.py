"""What an evaluation finds, as data."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Figure:
    """One figure with its 95 % interval."""

    name: str
    value: float
    low: float
    high: float

    def as_dict(self) -> dict[str, float]:
        """Plain JSON values."""
        return {"value": self.value, "low": self.low, "high": self.high}


@dataclass(frozen=True)
class Group:
    """The figures of the rows with one value of a column."""

    column: str
    value: str
    rows: int
    figures: tuple[Figure, ...]


@dataclass(frozen=True)
class Evaluation:
    """The figures of one output, and of the difference to another."""

    kind: str  # captions, answers or vectors
    rows: int  # that have a reference, images that failed with them
    images: int
    figures: tuple[Figure, ...]
    groups: tuple[Group, ...] = ()
    counts: dict[str, int] = field(default_factory=dict)  # see ``match_rows.MatchCounts``
    notes: tuple[str, ...] = ()
    # Of the output that is compared: its figures, and the differences to it.
    other: tuple[Figure, ...] = ()
    differences: tuple[Figure, ...] = ()
    common: int = 0  # rows both have

    def as_dict(self) -> dict[str, Any]:
        """Plain JSON values."""
        by: dict[str, dict[str, Any]] = {}
        for group in self.groups:
            by.setdefault(group.column, {})[group.value] = {
                "rows": group.rows,
                "figures": _by_name(group.figures),
            }
        found: dict[str, Any] = {
            "kind": self.kind,
            "rows": self.rows,
            "images": self.images,
            "figures": _by_name(self.figures),
            "counts": self.counts,
            "notes": list(self.notes),
        }
        if by:
            found["by"] = by
        if self.differences:
            found["compare"] = {
                "rows": self.common,
                "figures": _by_name(self.other),
                "differences": _by_name(self.differences),
            }
        return found

    def value(self, name: str) -> float | None:
        """The figure of that name; None where there is none."""
        return next((one.value for one in self.figures if one.name == name), None)

    def shortfalls(self, least: dict[str, float]) -> Iterator[str]:
        """Yield a sentence for each figure below its lowest value."""
        for name, lowest in least.items():
            value = self.value(name)
            if value is not None and value < lowest:
                yield f"{name} is {value:.4f}, below {lowest:g}."


def _by_name(figures: tuple[Figure, ...]) -> dict[str, dict[str, float]]:
    return {one.name: one.as_dict() for one in figures}
