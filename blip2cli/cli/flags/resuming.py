"""The options about going on with an output, and about stopping before the source ends."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Annotated

from blip2cli.cli.flags.declare import OUTPUT, option
from blip2cli.errors import OptionError
from blip2cli.options import LimitOptions

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


@dataclass(frozen=True)
class ResumeFlags:
    """Going on, and stopping early."""

    resume: Annotated[
        bool,
        option(
            "--resume",
            panel=OUTPUT,
            help="Go on with OUT if it is there: only images without rows are run.",
        ),
    ] = False
    retry_errors: Annotated[
        bool,
        option(
            "--retry-errors",
            panel=OUTPUT,
            help="Go on with OUT, and try the images again that failed before.",
        ),
    ] = False
    max_errors: Annotated[
        str | None,
        option(
            "--max-errors",
            metavar="N|N%",
            panel=OUTPUT,
            help="Stop with exit code 1 when more images fail. \\[default: no limit]",
            show_default=False,
        ),
    ] = None
    max_duration: Annotated[
        str | None,
        option(
            "--max-duration",
            metavar="TIME",
            panel=OUTPUT,
            help="Stop after 90s, 15m, 2h or 1h30m with exit code 4; --resume goes on.",
            show_default=False,
        ),
    ] = None

    @property
    def limits(self) -> LimitOptions:
        """Raises ``OptionError`` for values that cannot be read."""
        return LimitOptions(seconds(self.max_duration), most_errors(self.max_errors))


def seconds(text: str | None) -> float | None:
    """``90``, ``90s``, ``15m``, ``1h30m`` in seconds. Raises ``OptionError``."""
    if text is None:
        return None
    number = r"\d+(?:\.\d+)?"
    if re.fullmatch(number, text):
        total = float(text)
    elif re.fullmatch(rf"(?:{number}[smhd])+", text):
        total = sum(float(n) * _UNITS[u] for n, u in re.findall(rf"({number})([smhd])", text))
    else:
        raise OptionError(f"--max-duration {text!r} is no time; write 90s, 15m, 2h or 1h30m.")
    if total <= 0:
        raise OptionError("--max-duration must be longer than nothing; leave it out for no limit.")
    return total


def most_errors(text: str | None) -> int | float | None:
    """``10`` as an int, ``5%`` as the share 0.05. Raises ``OptionError``."""
    if text is None:
        return None
    if re.fullmatch(r"\d+", text):
        return int(text)
    share = re.fullmatch(r"(\d+(?:\.\d+)?)%", text)
    if share is None or float(share[1]) > 100:
        raise OptionError(f"--max-errors {text!r}: give a number of images, or a share like 5%.")
    return float(share[1]) / 100
