"""The table of readers: one kind of source a line, one reader a module.

A reader module has a function ``open_source(text, options)`` that checks the argument ``text`` and
returns its :class:`~blip2cli.sources.base.Source`; it raises SourceError for what cannot be read
and OptionError for options that do not fit. Reader modules are imported when they are first used:
the table itself costs nothing, so help texts read it too.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, BinaryIO, cast

from blip2cli.sources.patterns import has_magic
from blip2cli.storage.opening import is_remote

if TYPE_CHECKING:
    from blip2cli.options import SourceOptions
    from blip2cli.sources.base import Source


@dataclass(frozen=True)
class Reader:
    """One kind of source: how it is recognised, and the module that reads it."""

    name: str  # of the module in this package
    kind: str  # what help texts call such a source
    recognises: Callable[[str], bool]
    container: bool = False  # one file with many images in it, or a list of them
    reads_stdin: bool = False  # its ``open_source`` takes the stream as a third argument

    def open(self, text: str, options: SourceOptions, stdin: BinaryIO | None = None) -> Source:
        """The source behind ``text``. Raises SourceError or OptionError."""
        module = import_module(f"{__name__}.{self.name}")
        stream = (stdin,) if self.reads_stdin else ()
        return cast("Source", module.open_source(text, options, *stream))


def _file_with(*suffixes: str) -> Callable[[str], bool]:
    """Whether a text names a file, here or behind a URL, that has one of the suffixes."""

    def recognises(text: str) -> bool:
        if not text.lower().endswith(suffixes):
            return False
        return not has_magic(text) if is_remote(text) else os.path.isfile(text)

    return recognises


def _is_dataset(text: str) -> bool:
    """Whether a text names a whole data set, perhaps at a revision."""
    if not text.startswith("hf://datasets/"):
        return False
    repo, _, revision = text.removeprefix("hf://datasets/").rstrip("/").partition("@")
    parts = revision.split("/")
    whole = len(parts) == 1 or (len(parts) == 3 and parts[0] == "refs")
    return repo.count("/") == 1 and whole


_PLAIN = (".txt", ".csv", ".tsv", ".jsonl", ".json")
# ``.errors``: our own lists of failed images, which are JSON Lines.
MANIFESTS = (
    *_PLAIN,
    *(suffix + packed for suffix in _PLAIN for packed in (".gz", ".xz")),
    ".errors",
)
# What xz and zstd make is refused by name.
TARS = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz", ".tar.zst", ".tzst")

# In this order; the first that recognises the argument reads it. What exists on disk goes before
# patterns, so a file called "cat[1].png" is found by its name.
READERS: tuple[Reader, ...] = (
    Reader("stdin", "or - for paths on stdin", lambda text: text == "-", reads_stdin=True),
    Reader("folder", "folders (read recursively)", os.path.isdir),
    Reader("manifest", "manifests", _file_with(*MANIFESTS), container=True),
    Reader("parquet", "Parquet files", _file_with(".parquet"), container=True),
    Reader("tar", "tar archives", _file_with(*TARS), container=True),
    Reader("zips", "zip archives", _file_with(".zip"), container=True),
    Reader("hub", "data sets of the hub (hf://datasets/OWNER/NAME)", _is_dataset),
    Reader("remote", "each also at a URL (s3://, gs://, hf://)", is_remote),
    Reader("files", "image files", os.path.lexists),
    Reader("globs", "globs", has_magic),
)


def describe_sources() -> str:
    """The kinds of sources in one sentence, for help texts."""
    # What these two are called goes with all the others, so they come last.
    readers = sorted(READERS, key=lambda one: (one.name == "stdin", one.name == "remote"))
    text = ", ".join(reader.kind for reader in readers)
    return text[0].upper() + text[1:]


def find_reader(text: str) -> Reader | None:
    """The reader of the argument ``text``; None when no kind of source is recognised."""
    return next((reader for reader in READERS if reader.recognises(text)), None)


def open_container(text: str, options: SourceOptions) -> Source | None:
    """The source behind ``text`` if it is a manifest, a table or an archive, else None."""
    for reader in READERS:
        if reader.container and reader.recognises(text):
            return reader.open(text, options)
    return None
