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
from contextlib import contextmanager

_lock = threading.RLock()
_chatter = False
_downloads: bool | None = None


def show_library_messages(allowed: bool = True) -> None:
    """Let the libraries speak (``-vv``), or silence them again."""
    global _chatter
    _chatter = allowed


def show_downloads(shown: bool | None) -> None:
    """Whether downloads draw a bar; None (the default) means when stderr is a terminal."""
    global _downloads
    _downloads = shown


def downloads_shown() -> bool:
    """Whether a download should draw its bar on stderr."""
    if _downloads is not None:
        return _downloads
    return _chatter or sys.stderr.isatty()


@contextmanager
def silence_libraries() -> Iterator[None]:
    """While open, transformers, huggingface_hub and Python warnings keep quiet.

    Errors still travel as exceptions. Does nothing once chatter is allowed. Log levels and the
    bar's state are put back on leaving, so a program that embeds blip2cli keeps its settings.
    """
    if _chatter:
        yield
        return
    # One thread at a time: what a second one found would be what the first had set.
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Imported before the levels are set: their first import sets a level of its own.
        importlib.import_module("huggingface_hub.utils.logging")
        from transformers.utils import logging as chatter

        names = ("transformers", "huggingface_hub", "torch")
        loggers = [logging.getLogger(name) for name in names]
        levels = [logger.level for logger in loggers]
        bars = chatter.is_progress_bar_enabled()
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        # Its own switch for bars would turn huggingface_hub's off as well.
        chatter._tqdm_active = False
        try:
            yield
        finally:
            chatter._tqdm_active = bars
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)


@contextmanager
def silence_hub() -> Iterator[None]:
    """While open, huggingface_hub keeps quiet; its download bar follows ``downloads_shown``."""
    importlib.import_module("huggingface_hub.utils.logging")  # sets a level of its own
    from huggingface_hub.utils.tqdm import (
        are_progress_bars_disabled,
        disable_progress_bars,
        enable_progress_bars,
    )

    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    with warnings.catch_warnings():
        if not _chatter:
            warnings.simplefilter("ignore")
            logger.setLevel(logging.CRITICAL)
        switched = not downloads_shown() and not are_progress_bars_disabled()
        if switched:
            disable_progress_bars()
        try:
            yield
        finally:
            logger.setLevel(level)
            if switched:
                enable_progress_bars()


@contextmanager
def silence_packages(*names: str) -> Iterator[None]:
    """While open, Python warnings, and the loggers of these packages, keep quiet."""
    if _chatter:
        yield
        return
    loggers = [logging.getLogger(name) for name in names]
    with _lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        levels = [logger.level for logger in loggers]
        for logger in loggers:
            logger.setLevel(logging.CRITICAL)
        try:
            yield
        finally:
            for logger, level in zip(loggers, levels, strict=True):
                logger.setLevel(level)
