"""When a run ends before its source does: after too many failures (its time limit: ``run``)."""

from __future__ import annotations

from blip2cli.errors import RunError, option
from blip2cli.pipeline.stats import RunStats

# A share of failures means nothing while fewer images were seen; at the end it always counts.
_SHARE_COUNTS_FROM = 100


class ErrorLimit:
    """The option ``max_errors``: a number of images, or as a float the share of those seen."""

    def __init__(self, most: int | float | None) -> None:
        self._most = most

    def check(self, stats: RunStats, at_end: bool = False) -> None:
        """Raise ``RunError`` when more images failed than may."""
        if self._most is None or not stats.failed:
            return
        seen = stats.seen
        if isinstance(self._most, int):
            over = stats.failed > self._most
            allowed = f"{self._most}"
        else:
            over = (at_end or seen >= _SHARE_COUNTS_FROM) and stats.failed > self._most * seen
            allowed = f"{round(100 * self._most, 4):g}%"
        if over:
            raise RunError(
                "max_errors",
                f"{stats.failed} of {seen} images failed, more than {option('max_errors')} "
                f"{allowed} allows",
                f"the rows so far are safe, go on with {option('resume')} when the cause is "
                "removed",
            )
