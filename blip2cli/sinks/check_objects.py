"""Checks of an output on an object store before a run, as ``check_output`` has them for files."""

from __future__ import annotations

import re

from blip2cli.errors import OutputError, SourceError, UserError, option
from blip2cli.options import OutputOptions
from blip2cli.sinks.failure_list_file import exists
from blip2cli.sinks.folder_layout import VISIBLE
from blip2cli.sinks.paths import OutputPaths
from blip2cli.sinks.settings_file import has_settings, owns_failures
from blip2cli.storage.object_requests import FIRST_PAUSES, ObjectFolder, check_protocol
from blip2cli.storage.secrets import hide_secrets


def check_objects(options: OutputOptions) -> None:
    """Raise OutputError when the output cannot be written, or must not be replaced.

    Whether objects can be put there at all, and exclusively, the lock finds out.
    """
    out = options.out or ""
    check_protocol(out)
    check_folder_url(out)
    shown = hide_secrets(out)
    try:
        _check_there(OutputPaths.of(out), options, shown)
    except SourceError as error:
        raise OutputError("out", error.problem, error.remedy) from None


def check_folder_url(url: str, error: type[UserError] = OutputError, field: str = "out") -> None:
    """Raise ``error`` for a URL that is none of a folder in a bucket."""
    shown = hide_secrets(url)
    if not url.endswith("/"):
        folder = re.sub(r"[.](parquet|jsonl([.]gz)?)$", "", url) + "/"
        raise error(
            field,
            f"{shown!r} is one object, but on a store rows are in a folder of Parquet files",
            f"write {hide_secrets(folder)!r}",
        )
    if url.count("/") < 4:
        raise error(
            field,
            f"{shown!r} is a whole bucket",
            f"name a folder in it, such as {shown.rstrip('/') + '/captions/'!r}",
        )


def _check_there(paths: OutputPaths, options: OutputOptions, shown: str) -> None:
    """Raise OutputError for objects that are not those of this run, SourceError."""
    objects = ObjectFolder(paths.final, FIRST_PAUSES).names()
    hidden = ObjectFolder(paths.beside_folder, FIRST_PAUSES).names()
    parts = [name for name in objects if VISIBLE.fullmatch(name)]
    unfinished = any(name.startswith("rows-") for name in hidden)
    foreign = None
    if parts and not has_settings(paths):
        foreign = parts[0]
    elif objects and not (parts or unfinished):  # an empty folder may become ours
        foreign = objects[0]
    if foreign is not None:
        raise OutputError(
            "out",
            f"The output {shown!r} is a folder with objects of others, such as {foreign!r}",
            f"name a new folder in it, such as {shown + 'captions/'!r}",
        )
    if not (options.overwrite or options.resumes):
        if parts:
            raise OutputError(
                "out",
                f"The output {shown!r} exists already",
                f"add {option('resume')} to go on with it, {option('overwrite')} to replace it, or "
                "choose another name",
            )
        if unfinished:
            raise OutputError(
                "out",
                f"An unfinished run left rows for {shown!r} beside it",
                f"add {option('resume')} to go on with them, {option('overwrite')} to start anew "
                "without them, or choose another name",
            )
    if options.errors == "file" and exists(paths) and not owns_failures(paths):
        raise OutputError(
            "out",
            f"There is an object {hide_secrets(paths.errors)!r}, where images that fail would be "
            "listed, and it is no list of this output",
            "move it away, or choose another name",
        )
