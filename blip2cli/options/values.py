"""Values that are written as text on the command line: times, shares of failures, batch sizes,
memory of devices."""

from __future__ import annotations

import re
from functools import partial

from blip2cli.errors import OptionError, option

_UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_NUMBER = r"\d+(?:\.\d+)?"
# As accelerate takes them: powers of 1024 with an i, of 1000 without.
_BYTES = {
    f"{prefix}{suffix}".lower(): base**power
    for suffix, base in (("iB", 1024), ("B", 1000))
    for power, prefix in enumerate(("K", "M", "G", "T"), 1)
} | {"": 1, "b": 1}


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
        problem = f"{name} must be longer than nothing"
        raise OptionError(field, problem, "give a longer time, or leave it out")
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


def parse_max_memory(text: str) -> dict[str, int]:
    """``cuda:0=20GiB,cpu=60GiB`` as bytes by device, GPUs first. Raises ``OptionError``."""
    found: dict[str, int] = {}
    for entry in text.split(","):
        name, _, size = (part.strip() for part in entry.partition("="))
        device = "cuda:0" if name == "cuda" else name
        number = re.fullmatch(rf"({_NUMBER}) *([a-z]*)", size, re.ASCII | re.IGNORECASE)
        unit = _BYTES.get(number[2].lower()) if number else None
        known = re.fullmatch(r"cpu|cuda:(0|[1-9][0-9]*)", device, re.ASCII)
        if number is None or unit is None or not known or device in found:
            raise OptionError(
                "max_memory",
                f"{option('max_memory')}: {entry!r} is no device with its memory, given once",
                "write cuda:0=20GiB,cpu=60GiB",
            )
        found[device] = int(float(number[1]) * unit)
    gpus = sorted((name for name in found if name != "cpu"), key=lambda name: int(name[5:]))
    return {name: found[name] for name in (*gpus, "cpu") if name in found}
