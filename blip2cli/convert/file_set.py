"""Files that belong together, such as vectors and their keys, or the shards of one data set.

A hidden file beside them holds the size and the SHA-256 of each. It is written last, so files of
two conversions are known by it: those of one that was killed half-way, and those that were copied
over others.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence

from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage import durable
from blip2cli.storage.text_encoding import to_json, to_utf8


def record_path(out: str) -> str:
    """The hidden file of the output ``out``, named as it was typed for the conversion."""
    return OutputPaths.of(out).hidden(".files.json")


def record_files(out: str, files: Sequence[str]) -> None:
    """Write down what the ``files`` of ``out`` are. Raises OSError."""
    about = {
        _name(out, file): {"size": os.path.getsize(file), "sha256": _digest(file)} for file in files
    }
    path = record_path(out)
    durable.replace_file(durable.temporary_name(path), path, to_json({"files": about}) + b"\n")


def recorded_files(out: str) -> dict[str, dict[str, object]] | None:
    """What was written down, by name; None where nothing is, or nothing that can be read."""
    try:
        with open(record_path(out), "rb") as file:
            about = json.load(file)["files"]
        return about if isinstance(about, dict) else None
    except (OSError, ValueError, KeyError, TypeError, RecursionError):
        return None


def strangers(out: str, files: Sequence[str]) -> list[str]:
    """Sentences about those of ``files`` that are not what was written, and about missing ones.

    None where all of them are others: what was written down is then not about them. Raises OSError.
    """
    recorded = recorded_files(out)
    if recorded is None:
        return []
    names = {_name(out, file): file for file in files}
    sizes = {name: os.path.getsize(file) for name, file in names.items()}
    alike = all(about.get("size") == sizes.get(name) for name, about in recorded.items())
    same = {
        name
        for name, about in recorded.items()
        if about.get("size") == sizes.get(name) and about.get("sha256") == _digest(names[name])
    }
    if not same and not alike:
        return []
    found = [f"{name!r} is missing" for name in recorded if name not in names]
    found += [f"{n!r} is not what was written" for n in recorded if n in names and n not in same]
    return found + [f"{name!r} is of another conversion" for name in names if name not in recorded]


def files_below(folder: str) -> list[str]:
    """All files in ``folder`` and below it."""
    return sorted(os.path.join(below, n) for below, _, names in os.walk(folder) for n in names)


def _name(out: str, file: str) -> str:
    """The name of a file of ``out``, relative to the folder that ``out`` lies in."""
    return to_utf8(os.path.relpath(os.path.realpath(file), OutputPaths.of(out).folder))


def _digest(path: str) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
