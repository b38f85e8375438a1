"""Checks of an output before a run: what would keep it from being written later."""

from __future__ import annotations

import contextlib
import difflib
import os
import stat

from blip2cli.errors import OutputError, option
from blip2cli.options import OutputOptions
from blip2cli.sinks import folder_layout
from blip2cli.sinks.check_objects import check_objects
from blip2cli.sinks.format_table import FOLDER, known_suffix, suffixes
from blip2cli.sinks.paths import LONGEST_ENDING, OutputPaths, to_stdout
from blip2cli.sinks.settings import read_settings
from blip2cli.sinks.settings_file import has_settings, owns_failures
from blip2cli.storage.opening import is_remote

_MISSPELLINGS = {
    ".json": ".jsonl", ".ndjson": ".jsonl", ".jl": ".jsonl", ".json.gz": ".jsonl.gz",
    ".ndjson.gz": ".jsonl.gz", ".gz": ".jsonl.gz", ".pq": ".parquet", ".parq": ".parquet",
}  # fmt: skip


def check_output(options: OutputOptions) -> None:
    """Raise OutputError when the output cannot be written, or must not be replaced."""
    if options.resumes and options.overwrite:
        raise OutputError(
            "resume",
            f"{option('resume')} and {option('overwrite')} contradict each other: the first goes "
            "on with what is there, the second replaces it",
            "give one",
        )
    if to_stdout(options):
        if options.resumes:
            raise OutputError(
                "resume",
                f"{option('resume')} needs a file to go on with",
                f"name it with {option('out')}",
            )
        return
    out = options.out or ""
    if is_remote(out):
        check_objects(options)
        return
    if known_suffix(out) == FOLDER:
        _check_folder(out, options)
        return
    if known_suffix(out) is None or known_suffix(out) == os.path.basename(out).lower():
        raise OutputError("out", *_suffix_advice(out))
    check_place(out, options.overwrite or options.resumes, f"{option('resume')} to go on with it, ")
    if known_suffix(os.path.realpath(out)) != known_suffix(out):
        problem = f"The output {out!r} is a symbolic link to a file of another format"
        raise OutputError("out", problem, "name that file itself, or remove the link")
    try:
        _check_beside(out, options)
    except OSError as error:
        raise OutputError(
            "out",
            f"The files beside the output {out!r} cannot be looked at ({error.strerror})",
            "choose another folder",
        ) from None


def _check_folder(out: str, options: OutputOptions) -> None:
    """Raise OutputError for a folder that is not an output of ours, or not one to go on with."""
    paths = OutputPaths.of(out)
    check_parent(out)
    _check_length(paths.final, folder_layout.LONGEST_ENDING, out, "out")
    if os.path.ismount(paths.final):  # where nothing can be put beside it
        example = os.path.join(out, "captions/")
        problem = f"The output {out!r} is the root of a file system"
        raise OutputError("out", problem, f"name a folder in it, such as {example!r}")
    if os.path.isdir(paths.final) and not os.access(paths.final, os.W_OK | os.X_OK):
        problem = f"No file can be created in the output {out!r}"
        raise OutputError("out", problem, "choose another folder")
    try:
        check_beside(paths)
        names = os.listdir(paths.final) if os.path.lexists(paths.final) else []
        parts = sorted(name for name in names if folder_layout.VISIBLE.fullmatch(name))
        foreign = _foreign_part(paths, parts)
        if foreign is None and not (parts or paths.parts()):  # an empty one may become ours
            foreign = min(names, default=None)
            if not out.endswith("/"):
                example = os.path.join(out, "captions.jsonl")
                raise OutputError(
                    "out",
                    f"The output {out!r} is a folder",
                    f"name a file in it, for example {example!r}, or {out + '/'!r} for a folder of "
                    "Parquet files",
                )
        if foreign is not None:
            raise OutputError(
                "out",
                f"The output {out!r} is a folder with files of others, such as {foreign!r}",
                f"name a new folder in it, such as {os.path.join(out, 'captions/')!r}, or a file",
            )
        if parts and not (options.overwrite or options.resumes):
            raise _exists(out, f"{option('resume')} to go on with it, ", "out")
        _check_beside(out, options)
    except NotADirectoryError:
        problem = f"The output {out!r} is a file, not a folder"
        raise OutputError("out", problem, "leave out the slash, or choose another name") from None
    except OSError as error:
        raise OutputError(
            "out",
            f"The output {out!r} or the files beside it cannot be looked at ({error.strerror})",
            "choose another folder",
        ) from None


def _foreign_part(paths: OutputPaths, parts: list[str]) -> str | None:
    """The first of the ``parts`` of a folder that is not ours. Raises OSError."""
    if not parts:
        return None
    from blip2cli.sinks.row_groups import is_ours  # takes a while

    known = has_settings(paths)
    return next((p for p in parts if not is_ours(os.path.join(paths.final, p), known)), None)


def _check_beside(out: str, options: OutputOptions) -> None:
    """Raise OutputError for files beside the output that are not those of this run, OSError."""
    paths = OutputPaths.of(out)
    check_beside(paths)
    for part in paths.beside_parts() if options.overwrite else ():
        with open(part, "rb") as file:
            if file.read(4) not in (b"PAR1", b""):
                raise _foreign(part, "holds no rows", "out")
    new = not (options.overwrite or options.resumes)
    if new and paths.parts():
        raise OutputError(
            "out",
            f"An unfinished run left rows for {out!r} beside it",
            f"add {option('resume')} to go on with them, {option('overwrite')} to start anew "
            "without them, or choose another name",
        )
    if options.errors == "file" and os.path.lexists(paths.errors):
        ours = owns_failures(paths)
        # Without settings there were no rows yet: the list starts anew with them.
        there = os.path.lexists(paths.final) or paths.parts() or read_settings(paths) is None
        resumes = options.resumes and there
        if not (ours and (options.overwrite or resumes)):
            remedy = f"add {option('overwrite')} to replace it, " if ours else ""
            raise OutputError(
                "out",
                f"There is a file {out.rstrip('/') + '.errors'!r}, where images that fail would be "
                "listed, " + ("without its output" if ours else "and it is no list of this output"),
                f"move it away, {remedy}or choose another name",
            )


def check_beside(paths: OutputPaths, field: str = "out") -> None:
    """Raise OutputError for what others put under the name of a file beside the output."""
    for path in paths.beside():
        if os.path.lexists(path) and not stat.S_ISREG(os.lstat(path).st_mode):
            raise _foreign(path, "is a link or no regular file", field)
    if os.path.lexists(paths.meta) and not os.path.lexists(paths.final) and not has_settings(paths):
        raise _foreign(paths.meta, "holds no settings", field)


def _foreign(path: str, what: str, field: str) -> OutputError:
    return OutputError(
        field,
        f"{path!r}, which has the name of a file that belongs to the output, {what}",
        "move it away, or choose another name",
    )


def check_place(out: str, replace: bool, alternative: str = "", field: str = "out") -> None:
    """Raise OutputError when the file ``out`` cannot be created, or replaced if ``replace``.

    ``alternative`` to replacing it comes first in the remedy; ``field`` is the option to blame.
    """
    path = os.path.realpath(out)
    check_parent(out, field)
    _check_length(path, LONGEST_ENDING, out, field)
    # A link may have been planted, in an archive for example.
    suffix = os.path.splitext(path)[1].lower()
    if os.path.islink(out) and not (os.path.isfile(path) and out.lower().endswith(suffix or "/")):
        raise OutputError(
            field,
            f"The output {out!r} is a symbolic link to {path!r}, which is no such file",
            "name that file itself, or remove the link",
        )
    if os.path.lexists(path):
        if not os.path.isfile(path):
            problem = f"The output {out!r} is not a regular file"
            raise OutputError(field, problem, "choose another name")
        if not replace:
            raise _exists(out, alternative, field)


def _exists(out: str, alternative: str, field: str) -> OutputError:
    return OutputError(
        field,
        f"The output {out!r} exists already",
        f"add {alternative}{option('overwrite')} to replace it, or choose another name",
    )


def _check_length(path: str, ending: int, out: str, field: str) -> None:
    """Raise OutputError when a name with ``ending`` more bytes beside ``path`` is too long."""
    most = 0  # not known, as on some network file systems
    with contextlib.suppress(OSError):
        most = os.pathconf(os.path.dirname(path), "PC_NAME_MAX")
    limit = most - ending
    if most > 0 and len(os.fsencode(os.path.basename(path))) > limit:
        raise OutputError(
            field,
            f"The name of the output {out!r} is too long for those of the files beside it",
            f"choose one of at most {limit} bytes",
        )


def check_parent(out: str, field: str = "out") -> None:
    """Raise OutputError when the folder above ``out`` does not exist."""
    parent = os.path.dirname(os.path.realpath(out))
    if not os.path.isdir(parent):
        above = os.path.dirname(out.rstrip("/")) or parent
        raise OutputError(
            field,
            f"The folder {above!r} for the output does not exist",
            "create it (mkdir -p) first",
        )


def _suffix_advice(out: str) -> tuple[str, str]:
    """Problem and remedy for an output without a known suffix."""
    known = f"known are {', '.join(suffixes())}"
    name = os.path.basename(out).lower()
    if "." not in name.lstrip("."):
        return f"The output {out!r} has no suffix that says its format", known
    wrong = [suffix for suffix in _MISSPELLINGS if name.endswith(suffix)]
    suffix = max(wrong, key=len, default=os.path.splitext(name)[1])
    close = difflib.get_close_matches(suffix, suffixes(), n=1)
    meant = _MISSPELLINGS.get(suffix) or next(iter(close), None)
    hint = f"did you mean {meant}?" if meant else ""
    return f"The output {out!r} has the unknown suffix {suffix!r}, {known}", hint
