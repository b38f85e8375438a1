"""Counts and stage times of a run."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Literal

Stage = Literal["read", "model", "write"]


@dataclass
class RunStats:
    """What was done so far; seconds are wall-clock."""

    listed: float = 0.0  # from the start until the first items were listed
    imported: float = 0.0  # importing torch and what runs the model
    load: float = 0.0  # from the start until the model was ready: imports and weights
    first: float = 0.0  # from the start until the first rows were written; 0: none yet
    done: int = 0  # items with rows
    failed: int = 0
    rows: int = 0
    flagged: int = 0  # rows whose text is degenerate, or was at first
    retried: int = 0  # those of them whose second text is good
    stages: dict[Stage, float] = field(
        default_factory=lambda: {"read": 0.0, "model": 0.0, "write": 0.0}
    )

    @contextmanager
    def timing(self, stage: Stage) -> Iterator[None]:
        """Add the time of the block to ``stage``, however the block ends."""
        start = time.perf_counter()
        try:
            yield
        finally:
            self.stages[stage] += time.perf_counter() - start

    def add_batch_time(self, seconds: float, load_share: float) -> None:
        """Add the time of a batch, of which the part ``load_share`` went into loading it."""
        self.stages["read"] += seconds * load_share
        self.stages["model"] += seconds * (1 - load_share)

    def share(self, stage: Stage) -> float:
        """The part of the working time that ``stage`` took, 0 to 1."""
        working = sum(self.stages.values())
        return self.stages[stage] / working if working else 0.0

    def count(self, rows: Sequence[Mapping[str, object]]) -> None:
        """Count the rows of a batch."""
        self.rows += len(rows)
        for row in rows:
            if flag := row.get("flag"):
                self.flagged += 1
                self.retried += flag == "retried"

    @property
    def seen(self) -> int:
        """Items dealt with so far."""
        return self.done + self.failed
