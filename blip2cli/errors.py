"""Every error blip2cli raises on purpose, as data, and the exit code each one means.

* ``Blip2CliError``: root of the tree, exit code 1, the run failed.

  - ``UserError``: exit code 2, something the user gave is wrong.

    + ``SourceError``: a source that is missing, empty, or not readable as images.
    + ``ModelError``: a model that cannot be found, reached or loaded.
    + ``OptionError``: options that contradict one another or do not fit the model.
    + ``OutputError``: an output that exists, has an unknown suffix, or cannot be written.

  - ``RunError``: exit code 1, the run had to stop half-way (full disk, too many failures).
  - ``ImageError``: no exit code of its own. One image failed, the run goes on and ends with 3.

An error is data: ``field``, ``problem`` and ``remedy``. Nothing below the command line writes the
name of a flag. A text that names an option holds ``option("num_beams")``, and whoever prints the
text says how an option is spelled: ``--num-beams`` on a terminal, ``num_beams`` in Python.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from blip2cli import exit_codes

__all__ = [
    "Blip2CliError",
    "ImageError",
    "ModelError",
    "OptionError",
    "OutputError",
    "RunError",
    "SourceError",
    "UserError",
    "option",
    "spell_options",
]

# Record separators: no text that a person writes holds them, and no terminal gets to see them.
_OPTION = re.compile("\x1e([a-z][a-z0-9_]*)\x1f")


def option(name: str) -> str:
    """The option ``name`` (a field of ``blip2cli.options``) inside a text for people."""
    return f"\x1e{name}\x1f"


def spell_options(text: str, spell: Callable[[str], str] = str) -> str:
    """``text`` with every ``option(...)`` in it as ``spell`` writes it; by default its name."""
    return _OPTION.sub(lambda found: spell(found[1]), text)


class Blip2CliError(Exception):
    """Root of every error raised on purpose.

    ``field`` is the option that is to blame (None: no single one), ``problem`` says what is wrong
    and ``remedy`` what to do about it, both without a full stop. ``str(error)`` is the sentence
    with the options spelled as in Python.
    """

    exit_code = exit_codes.RUN_FAILED  # what the process ends with

    def __init__(self, field: str | None, problem: str, remedy: str = "") -> None:
        super().__init__(field, problem, remedy)
        self.field = field
        self.problem = problem
        self.remedy = remedy

    def sentence(self, spell: Callable[[str], str] = str) -> str:
        """Problem and remedy as one sentence, options as ``spell`` writes them."""
        text = f"{self.problem}; {self.remedy}" if self.remedy else self.problem
        return spell_options(text if text.endswith((".", "?", "!")) else f"{text}.", spell)

    def __str__(self) -> str:
        return self.sentence()


class UserError(Blip2CliError):
    """The user's input is wrong; ``remedy`` says how to put it right."""

    exit_code = exit_codes.WRONG_INPUT


class SourceError(UserError):
    """A source is missing, empty, or cannot be read as images."""


class ModelError(UserError):
    """A model cannot be found, reached or loaded."""


class OptionError(UserError):
    """Options contradict one another, or do not fit the model."""


class OutputError(UserError):
    """The output exists already, has an unknown suffix, or cannot be written."""


class RunError(Blip2CliError):
    """The run had to stop before its end; what was written so far is safe."""


class ImageError(Blip2CliError):
    """One image cannot be used.

    ``error_type`` is a stable, lower-case name (``truncated``, ``not_an_image``, …) that
    scripts may rely on; the modules that raise it list theirs (``images/decode.py``, …).
    ``str(error)`` is the sentence for people, in lists of failures too: options are plain words.
    """

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(None, message)
        self.error_type = error_type

    def __str__(self) -> str:
        return spell_options(self.problem, lambda name: name.replace("_", " "))

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        """Keep both arguments when a loader worker hands the error to the main process."""
        return (type(self), (self.error_type, self.problem))


def either(names: Sequence[object]) -> str:
    """``a, b or c``."""
    *others, last = map(str, names)
    return f"{', '.join(others)} or {last}" if others else last
