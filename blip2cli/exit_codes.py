"""Exit codes of the commands. Scripts, cron and CI rely on these numbers."""

from __future__ import annotations

SUCCESS = 0  # every row is good
RUN_FAILED = 1  # the run had to stop, or there is a bug
WRONG_INPUT = 2  # what the user gave is wrong
FAILED_IMAGES = 3  # the run finished, some images failed
MORE_TO_DO = 4  # the time limit ended the run; the rows so far are safe
# As shells report a process that a signal ended: 128 plus its number.
HUNG_UP = 129  # SIGHUP: the terminal was closed
INTERRUPTED = 130  # SIGINT
BROKEN_PIPE = 141  # SIGPIPE: whoever read stdout is gone
TERMINATED = 143  # SIGTERM


def of_signal(number: int) -> int:
    """The exit code of a process that ended because of signal ``number``."""
    return 128 + number
