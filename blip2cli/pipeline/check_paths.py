"""Checks that no path is given for two purposes: what is written would destroy what is read."""

from __future__ import annotations

import glob
import os
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from blip2cli.errors import OutputError, option
from blip2cli.options import declarations
from blip2cli.sinks.paths import OutputPaths, to_stdout
from blip2cli.sources.patterns import has_magic
from blip2cli.storage.opening import is_remote

if TYPE_CHECKING:
    from blip2cli.pipeline.job import Job


def check_paths(job: Job[Any]) -> None:
    """Raise ``OutputError`` for a file to write that is read, or written for another purpose."""
    options = job.options.output
    out, summary = options.out or "", options.summary
    paths = None if job.sink is not None or to_stdout(options) else OutputPaths.of(out)
    written = [] if paths is None else [("out", out, paths.final), ("out", out, paths.errors)]
    if summary is not None:
        # Of a new output the rows are written all the same, and the summary is refused then.
        if paths is not None and paths.own(os.path.realpath(summary)):
            problem = f"{option('summary')} {summary} is a file that belongs to the output"
            raise OutputError("summary", problem, "choose another name")
        written.append(("summary", summary, os.path.realpath(summary)))
    for field, given, path in written:
        same = _same_as(path, inside=paths is not None and paths.is_folder and path == paths.final)
        for name, read in _read(job, path):
            if same(read):
                raise OutputError(
                    field,
                    f"{option(field)} {given}: {read!r} is read as {option(name)}",
                    "choose another name",
                )


def _read(job: Job[Any], written: str) -> Iterator[tuple[str, str]]:
    """(option, path) of the files that are read; of a glob only what may be ``written``."""
    suffix = os.path.splitext(written)[1].lower()
    for text in job.options.source.sources:
        if has_magic(text) and not is_remote(text) and text.lower().endswith(suffix):
            yield from (("sources", path) for path in glob.iglob(text, recursive=True))
        yield "sources", text
    group = getattr(job.task, "options", None)
    for name, declared in declarations(type(group)) if group is not None else ():
        if declared.metavar == "FILE" and (path := getattr(group, name)) is not None:
            yield name, path


def _same_as(written: str, inside: bool = False) -> Callable[[str], bool]:
    """Whether a path is the file ``written``, by whatever name; ``inside``: or a file in it."""
    if is_remote(written):
        return lambda path: f"{path.rstrip('/')}/".startswith(f"{written}/")
    try:
        there = os.stat(written)
    except (OSError, ValueError):  # compared by its name
        return lambda path: (
            os.path.basename(path) == os.path.basename(written)
            and written == os.path.realpath(path)
        )

    def same(path: str) -> bool:
        try:
            folder = os.path.dirname(os.path.realpath(path)) if inside else path
            return any(os.path.samestat(os.stat(p), there) for p in {path, folder})
        except (OSError, ValueError):
            return False

    return same
