"""When a run ends before its source does: after a time, or after too many failures."""

from __future__ import annotations

from blip2cli.errors import RunError
from blip2cli.pipeline.stats import Tally

# A share of failures means nothing before so many images were seen; at the end it always counts.
_ENOUGH = 100


class ErrorLimit:
    """``--max-errors``: a number of images, or as a float the share of those seen."""

    def __init__(self, most: int | float | None) -> None:
        self._most = most

    def check(self, tally: Tally, at_end: bool = False) -> None:
        """Raise ``RunError`` when more images failed than may."""
        if self._most is None or not tally.failed:
            return
        seen = tally.seen
        if isinstance(self._most, int):
            over = tally.failed > self._most
            allowed = f"{self._most}"
        else:
            over = (at_end or seen >= _ENOUGH) and tally.failed > self._most * seen
            allowed = f"{round(100 * self._most, 4):g}%"
        if over:
            raise RunError(
                f"{tally.failed} of {seen} images failed, more than --max-errors {allowed} allows; "
                "the rows so far are safe, go on with --resume when the cause is mended."
            )
