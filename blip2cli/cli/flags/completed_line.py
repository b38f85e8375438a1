"""The line that a shell has completed, in the variables by which Typer's scripts hand it over."""

from __future__ import annotations

import os

COMPLETE = "_BLIP2CLI_COMPLETE"  # what is asked for, such as complete_bash; unset: nothing
_BASH, _OTHERS = "COMP_WORDS", "_TYPER_COMPLETE_ARGS"  # the line, in bash a word a line


def completed_words() -> list[str]:
    """The words of the line, split at blanks."""
    return os.environ.get(_BASH, os.environ.get(_OTHERS, "")).split()


def is_bare_in_bash() -> bool:
    """Whether bash completes a word that begins with no quote, where blanks need a backslash."""
    if os.environ.get(COMPLETE) != "complete_bash":
        return False
    line, place = os.environ[_BASH].split("\n"), int(os.environ["COMP_CWORD"])
    return place >= len(line) or not line[place].startswith(("'", '"'))


def shows_help() -> bool:
    """Whether help texts are shown.

    Where a shell completes the line, only beside names of options, and in bash not at all.
    """
    asked = os.environ.get(COMPLETE)
    last = os.environ.get(_OTHERS, "").rpartition(" ")[2]
    return asked is None or (asked != "complete_bash" and last.startswith("-"))
