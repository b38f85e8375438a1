"""Values that are written as text on the command line: times, shares of failures, batch sizes."""

from __future__ import annotations

import re
from functools import partial

from blip2cli.errors import OptionError, option

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"\d+(?:\.\d+)?"


def parse_duration(text: str, field: str = "max_duration") -> float:
    """``90``, ``90s``, ``15m``, ``1h30m`` in seconds. Raises ``OptionError`` about ``field``."""
    name = option(field)
    if re.fullmatch(_NUMBER, text):
        seconds = float(text)
    elif re.fullmatch(rf"(?:{_NUMBER}[smhd])+", text):
        seconds = sum(float(n) * _UNITS[u] for n, u in re.findall(rf"({_NUMBER})([smhd])", text))
    else:
        raise OptionError(field, f"{name} {text!r} is no time", "write 90s, 15m, 2h or 1h30m")
    if seconds <= 0:
        raise OptionError(field, f"{name} must be longer than nothing", "leave it out for no limit")
    return seconds


parse_stall_timeout = partial(parse_duration, field="stall_timeout")


def parse_error_limit(text: str) -> int | float:
    """``10`` as an int, ``5%`` as the share 0.05. Raises ``OptionError``."""
    if re.fullmatch(r"\d+", text):
        return int(text)
    share = re.fullmatch(rf"({_NUMBER})%", text)
    if share is None or float(share[1]) > 100:
        raise OptionError(
            "max_errors",
            f"{option('max_errors')} {text!r}: give a number of images, or a share like 5%",
        )
    return float(share[1]) / 100


def parse_batch_size(text: str) -> int | None:
    """A positive number; None for ``auto``. Raises ``OptionError``."""
    if text == "auto":
        return None
    if re.fullmatch(r"0*[1-9][0-9]*", text, re.ASCII):
        return int(text)
    raise OptionError(
        "batch_size", f"{option('batch_size')}: give auto or a positive number, not {text!r}"
    )
