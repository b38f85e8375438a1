"""The option ``shard``: which share of the images a process labels, typed or told by a launcher.

Shares are counted from 1. ``auto`` reads, in this order,

1. ``RANK`` and ``WORLD_SIZE``, of ``torchrun`` and ``accelerate launch``,
2. ``SLURM_PROCID`` and ``SLURM_NTASKS`` (in a step ``SLURM_STEP_NUM_TASKS``), of ``srun``,

and where ``SLURM_ARRAY_TASK_ID`` says that the process belongs to one task of an array, the share
is one of those of all tasks: an array of 4 tasks with 2 processes each has 8. Without any of these
it is ``JOB_COMPLETION_INDEX`` of an indexed Kubernetes job, which does not say how many there are:
``auto/N`` does. Where the environment says the number, too, the two have to agree.
"""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from blip2cli.errors import OptionError, option

_NUMBER = "[0-9]{1,9}"
_TYPED = re.compile(rf"({_NUMBER})/({_NUMBER})")
_AUTO = re.compile(rf"auto(?:/({_NUMBER}))?")
_ARRAY = "SLURM_ARRAY_TASK_"
_GIVE = "give the share as I/N, such as 3/8"


def parse_shard(text: str, environment: Mapping[str, str] = os.environ) -> str:
    """``I/N`` of ``I/N``, ``auto`` or ``auto/N``. Raises ``OptionError``."""
    name = option("shard")
    if typed := _TYPED.fullmatch(text):
        index, count = int(typed[1]), int(typed[2])
    elif auto := _AUTO.fullmatch(text):
        given = int(auto[1]) if auto[1] else None
        place = _launched({key: value for key, value in environment.items() if value}, given)
        index, count = place.position + 1, place.count
    else:
        raise OptionError(
            "shard", f"{name} {text!r} is no share", "write 3/8 for the third of eight, or auto"
        )
    if not 1 <= index <= count:
        allowed = f"give 1/{count} to {count}/{count}" if count else _GIVE
        raise OptionError("shard", f"{name} {text}: shares are counted from 1 to N", allowed)
    return f"{index}/{count}"


@dataclass(frozen=True)
class _Place:
    """Which process of how many a launcher says that this one is."""

    position: int  # from 0
    count: int
    counted_by: str | None  # the variables with the number; None: the option


def _launched(environment: Mapping[str, str], given: int | None) -> _Place:
    """The place of this process. ``given`` is N of ``auto/N``. Raises ``OptionError``."""
    tasks = "SLURM_STEP_NUM_TASKS"
    tasks = tasks if tasks in environment else "SLURM_NTASKS"
    array = _array(environment, given)
    # With an array, N is the number of all processes, and not of those of one task.
    inner = given if array is None else None
    place = _ranked(environment, "RANK", "WORLD_SIZE", inner)
    place = place or _ranked(environment, "SLURM_PROCID", tasks, inner)
    if place is None:
        place = array or _completion(environment, given)
    elif array is not None:
        position = array.position * place.count + place.position
        counted_by = f"{array.counted_by} times {place.counted_by}"
        place = _Place(position, array.count * place.count, counted_by)
    if given is not None and given != place.count:
        raise _wrong(f"{place.counted_by} says {place.count}, not {given}", "give auto alone")
    return place


def _ranked(
    environment: Mapping[str, str], rank: str, size: str, given: int | None
) -> _Place | None:
    """The place by a rank and the number of ranks; None where neither is set."""
    if rank not in environment and size not in environment:
        return None
    if rank not in environment or (size not in environment and given is None):
        one, other = (rank, size) if rank in environment else (size, rank)
        raise _wrong(f"{one} is set, and {other} is not", f"set both, or {_GIVE}")
    count = _number(environment, size) if size in environment else given
    return _within(environment, rank, _number(environment, rank), count or 0, size)


def _array(environment: Mapping[str, str], given: int | None) -> _Place | None:
    """The place in a SLURM array, whose ids may start anywhere and have steps."""
    if f"{_ARRAY}ID" not in environment:
        return None
    numbers = {
        name: _number(environment, _ARRAY + name)
        for name in ("ID", "MIN", "MAX", "COUNT", "STEP")
        if _ARRAY + name in environment
    }
    step, first, last = numbers.get("STEP") or 1, numbers.get("MIN", 0), numbers.get("MAX")
    count = numbers.get("COUNT", given if last is None else (last - first) // step + 1)
    if count is None:
        raise _wrong(f"{_ARRAY}ID is set, and {_ARRAY}COUNT is not", f"set both, or {_GIVE}")
    position, between = divmod(numbers["ID"] - first, step)
    if between or (last is not None and (last - first) // step + 1 != count):
        raise _wrong("the ids of this SLURM array are no even series", _GIVE)
    return _within(environment, f"{_ARRAY}ID", position, count, f"{_ARRAY}COUNT")


def _completion(environment: Mapping[str, str], given: int | None) -> _Place:
    """The place in an indexed Kubernetes job."""
    index = "JOB_COMPLETION_INDEX"
    if index not in environment:
        raise _wrong(
            "no launcher says which share this is, by RANK and WORLD_SIZE, SLURM_PROCID and "
            f"SLURM_NTASKS, {_ARRAY}ID or {index}",
            _GIVE,
        )
    if given is None:
        problem = f"{index} is set, but nothing says how many completions there are"
        raise _wrong(problem, "add their number: auto/8")
    return _within(environment, index, _number(environment, index), given, None)


def _within(
    environment: Mapping[str, str], name: str, position: int, count: int, counted_by: str | None
) -> _Place:
    if not 0 <= position < count:
        raise _wrong(f"{name} is {environment[name]}, which is none of {count}", _GIVE)
    return _Place(position, count, counted_by)


def _number(environment: Mapping[str, str], name: str) -> int:
    if not re.fullmatch(_NUMBER, environment[name]):
        raise _wrong(f"{name} is {environment[name]!r}, which is no number", _GIVE)
    return int(environment[name])


def _wrong(problem: str, remedy: str) -> OptionError:
    return OptionError("shard", f"{option('shard')} auto: {problem}", remedy)
