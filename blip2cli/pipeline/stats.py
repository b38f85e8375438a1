"""Counts and stage times of a run."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from blip2cli.tasks.base import ABSTAINED

if TYPE_CHECKING:
    from blip2cli.pipeline.processed_batch import ProcessedBatch

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
    abstained: int = 0  # rows that keep their guess back
    stages: dict[Stage, float] = field(
        default_factory=lambda: {"read": 0.0, "model": 0.0, "write": 0.0}
    )

    def add(self, batch: ProcessedBatch, waited: float, written: float) -> None:
        """Count a batch; the seconds it was waited for were spent as its own time was, those it was
        written in count for themselves."""
        self.stages["read"] += waited * batch.load_share
        self.stages["model"] += waited * (1 - batch.load_share)
        self.stages["write"] += written
        self.done += batch.done
        self.failed += sum(image.error is not None for image in batch.images)
        self.rows += len(batch.rows)
        for row in batch.rows:
            if flag := row.get("flag"):
                self.flagged += flag != ABSTAINED
                self.retried += flag == "retried"
                self.abstained += flag == ABSTAINED

    def share(self, stage: Stage) -> float:
        """The part of the working time that ``stage`` took, 0 to 1."""
        working = sum(self.stages.values())
        return self.stages[stage] / working if working else 0.0

    @property
    def seen(self) -> int:
        """Items dealt with so far."""
        return self.done + self.failed
