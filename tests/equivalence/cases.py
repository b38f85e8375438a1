"""The shape of a case: command lines run one after the other in a folder with the same files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Case:
    """Command lines and their surroundings.

    ``lines`` are arguments of ``blip2cli`` as a shell would split them; a line that begins with
    ``!`` is for the shell, such as one that removes a file in between. ``stdin`` names a file of
    the material.
    """

    name: str
    lines: tuple[str, ...]
    stdin: str | None = None
    env: Mapping[str, str] = field(default_factory=dict)
    terminal: bool = False  # whether stdout is one
    loads: bool = True  # whether it loads libraries; False: most of its time is the start


def case(
    name: str,
    lines: str,
    *,
    stdin: str | None = None,
    env: Mapping[str, str] | None = None,
    terminal: bool = False,
) -> Case:
    """A case of the lines of a text."""
    return Case(name, tuple(lines.strip("\n").splitlines()), stdin, env or {}, terminal)


def each(prefix: str, lines: str) -> tuple[Case, ...]:
    """A case for each line, named after its text; none of them loads a model."""
    return tuple(
        Case(f"{prefix}: {line}", (line,), loads=False) for line in lines.strip("\n").splitlines()
    )
