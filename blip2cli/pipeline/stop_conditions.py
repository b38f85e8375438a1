"""When a run ends before its source does: after too many failures (its time limit: ``run``)."""

from __future__ import annotations

from blip2cli.errors import RunError, option
from blip2cli.pipeline.stats import RunStats

# A share of failures means nothing while fewer images were seen; at the end it always counts.
_SHARE_COUNTS_FROM = 100


def check_error_limit(most: int | float | None, stats: RunStats, at_end: bool = False) -> None:
    """Raise ``RunError`` when more than ``most`` images failed.

    ``most`` is the option ``max_errors``: a number, or as a float the share of the images seen.
    """
    if most is None or not stats.failed:
        return
    seen = stats.seen
    if isinstance(most, int):
        over = stats.failed > most
        allowed = f"{most}"
    else:
        over = (at_end or seen >= _SHARE_COUNTS_FROM) and stats.failed > most * seen
        allowed = f"{round(100 * most, 4):g}%"
    if over:
        raise RunError(
            "max_errors",
            f"{stats.failed} of {seen} images failed, more than {option('max_errors')} "
            f"{allowed} allows",
            f"the rows so far are safe, go on with {option('resume')} when the cause is removed",
        )
