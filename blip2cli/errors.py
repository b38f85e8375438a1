"""Every error blip2cli raises on purpose, and the exit code each one means.

* ``Blip2CliError`` — root of the tree, exit code 1: the run failed.

  - ``UserError`` — exit code 2: something the user gave is wrong; the message names the mend.

    + ``SourceError`` — a source that is missing, empty, or not readable as images.
    + ``ModelError`` — a model that cannot be found, reached or loaded.
    + ``OptionError`` — options that contradict one another or do not fit the model.
    + ``OutputError`` — an output that exists, has an unknown suffix, or cannot be written.

  - ``RunError`` — exit code 1: the run had to stop half-way (full disk, too many failures).
  - ``ImageError`` — no exit code of its own: one image failed, the run goes on and ends with 3.

Messages are single sentences for a person at a terminal. They never hold a traceback.
"""

from __future__ import annotations

__all__ = [
    "Blip2CliError",
    "ImageError",
    "ModelError",
    "OptionError",
    "OutputError",
    "RunError",
    "SourceError",
    "UserError",
]


class Blip2CliError(Exception):
    """Root of every error raised on purpose; ``exit_code`` is what the process ends with."""

    exit_code = 1


class UserError(Blip2CliError):
    """The user's input is wrong; the message says how to mend it."""

    exit_code = 2


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
    scripts may rely on; ``str(error)`` is the sentence for people.
    """

    def __init__(self, error_type: str, message: str) -> None:
        super().__init__(message)
        self.error_type = error_type

    def __reduce__(self) -> tuple[type[ImageError], tuple[str, str]]:
        """Keep both arguments when a loader worker hands the error to the main process."""
        return (type(self), (self.error_type, str(self)))
