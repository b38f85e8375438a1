"""Silences the log messages, warnings and progress bars of transformers and huggingface_hub.

By default nothing of theirs reaches stderr while a model loads; ``show_library_messages()`` lets it
through. Downloads are the exception: they take minutes, so their bar is shown on a terminal.
"""

from __future__ import annotations

import importlib
import logging
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

_lock = threading.RLock()
_shown = False
_downloads: bool | None = None


def show_library_messages(shown: bool = True) -> None:
    """Whether the libraries' messages reach stderr; by default they do not."""
    global _shown
    _shown = shown
    if not shown:
        # Without any handler Python prints what libraries report as errors, tracebacks included.
        logging.getLogger().addHandler(logging.NullHandler())


def show_downloads(shown: bool | None) -> None:
    """Whether downloads draw a bar; None (the default) means when stderr is a terminal."""
    global _downloads
    _downloads = shown


def downloads_shown() -> bool:
    """Whether a download should draw its bar on stderr."""
    if _downloads is not None:
        return _downloads
    return _shown or sys.stderr.isatty()


@contextmanager
def silence_libraries() -> Iterator[None]:
    """Silence transformers, huggingface_hub and Python warnings while the block runs.

    Errors are still raised. Does nothing once messages are shown. Log levels and the state of the
    bars are restored, so that a program that embeds blip2cli keeps its settings.
    """
    if _shown:
        yield
        return
    with silence_packages():
        # Imported before the levels are set: their first import sets a level of its own.
        importlib.import_module("huggingface_hub.utils.logging")
        from transformers.utils import logging as transformers_logging

        with silence_packages("transformers", "huggingface_hub", "torch"):
            bars = transformers_logging.is_progress_bar_enabled()
            # Its own switch for bars would turn huggingface_hub's off as well.
            transformers_logging._tqdm_active = False
            try:
                yield
            finally:
                transformers_logging._tqdm_active = bars


@contextmanager
def silence_hub() -> Iterator[None]:
    """Silence huggingface_hub but for its download bar, which follows ``downloads_shown``."""
    importlib.import_module("huggingface_hub.utils.logging")  # sets a level of its own
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    with nullcontext() if _shown else _silenced("huggingface_hub"):
        switched = not downloads_shown() and not are_progress_bars_disabled()
        if switched:
            disable_progress_bars()
        try:
            yield
        finally:
            if switched:
                enable_progress_bars()


@contextmanager
def silence_packages(*names: str) -> Iterator[None]:
    """Silence Python warnings and the loggers of these packages while the block runs."""
    if _shown:
        yield
        return
    # One thread at a time: a second one would restore what the first had set.
    with _lock, _silenced(*names):
        yield


@contextmanager
def _silenced(*names: str) -> Iterator[None]:
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
