"""Interrupts (SIGINT) that come before there is anything to interrupt: no traceback is printed."""

from __future__ import annotations

import sys

TYPE_CHECKING = False  # as type checkers know it: nothing else is imported this early
if TYPE_CHECKING:
    from types import TracebackType


def hide_interrupts() -> None:
    """Let an interrupt that nobody catches end the process without a word, by its signal.

    A shell sees exit code 130. Modules take a fifth of a second to import; a run handles signals
    itself (``pipeline.signals``).
    """
    sys.excepthook = _hook


def _hook(kind: type[BaseException], error: BaseException, traceback: TracebackType | None) -> None:
    if not issubclass(kind, KeyboardInterrupt):
        sys.__excepthook__(kind, error, traceback)
