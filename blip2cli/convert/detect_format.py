"""Detects what a path is: a checkpoint, or results in which format."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable

from blip2cli.convert.format_table import FORMATS, READABLE, Format, format_by_suffix
from blip2cli.errors import OptionError, OutputError, SourceError, option
from blip2cli.model.checkpoint.embedded import EMBEDDED
from blip2cli.sinks.folder_layout import VISIBLE
from blip2cli.sinks.paths import OutputPaths
from blip2cli.storage.opening import is_remote

_CHECKPOINT_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt")
_CHECKPOINT_FILES = ("config.json", "adapter_config.json", "model.safetensors", "pytorch_model.bin")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)  # owner/name, on the hub
_MISSPELLINGS = {
    ".ndjson": ".jsonl", ".jl": ".jsonl", ".gz": ".jsonl.gz", ".pq": ".parquet",
    ".parq": ".parquet", ".xlsx": ".csv", ".tgz": ".tar", ".npz": ".npy",
}  # fmt: skip
METADATA_NAMES = ("metadata.jsonl", "metadata.parquet", "metadata.csv")


def is_checkpoint(path: str) -> bool:
    """Whether ``path`` is a model's weights rather than its results."""
    if os.path.isdir(path):
        return any(os.path.exists(os.path.join(path, name)) for name in _CHECKPOINT_FILES)
    return path.lower().endswith(_CHECKPOINT_SUFFIXES)


def is_model(name: str) -> bool:
    """Whether ``name`` means a checkpoint: a path to one, an embedded model, or a hub id.

    Where a folder is called as the hub id's owner, it is taken for a path.
    """
    if name in EMBEDDED or is_checkpoint(name):
        return True
    if os.path.exists(name) or _MODEL_NAME.fullmatch(name) is None:
        return False
    return format_by_suffix(name) is None and not os.path.isdir(name.partition("/")[0])


def read_format(path: str, given: str | None) -> Format:
    """The format that ``path`` is read as. Raises SourceError or OptionError."""
    if given is not None:
        _check_name("read_as", given, READABLE)
        if not FORMATS[given].readable:
            raise OptionError(
                "read_as",
                f"{option('read_as')} {given}: this format is only written, not read",
                f"read are {', '.join(READABLE)}",
            )
    if is_remote(path):
        raise SourceError("sources", f"{path!r} is on another machine", "copy it here first")
    if not os.path.exists(path):
        raise SourceError("sources", f"There is no file or folder {path!r}", "check the path")
    if given is not None:
        return FORMATS[given]
    if os.path.isdir(path):
        return FORMATS[_folder_format(path)]
    found = format_by_suffix(path)
    if found is not None and found.readable:
        return found
    suffixes = [s for one in FORMATS.values() if one.readable for s in one.suffixes]
    raise SourceError("sources", *_advice(path, suffixes, "read_as"))


def write_format(path: str, given: str | None) -> Format:
    """The format that is written. Raises OutputError or OptionError."""
    if is_remote(path):
        raise OutputError(
            "destination", f"{path!r} is on another machine", "write here and copy it there"
        )
    if given is not None:
        _check_name("write_as", given, FORMATS)
        return FORMATS[given]
    found = format_by_suffix(path)
    if found is not None:
        return found
    to = option("write_as")
    if path.lower().endswith(".json"):
        raise OutputError(
            "destination",
            f"{path!r} may be several things",
            f"add {to} coco, {to} vqa, {to} llava or {to} label-studio, or name a .jsonl file for "
            "rows as they are",
        )
    if os.path.isdir(path) or path.endswith("/") or not os.path.splitext(path)[1]:
        folders = [f"{to} {one.name}" for one in FORMATS.values() if one.folder]
        raise OutputError(
            "destination",
            f"{path!r} is a folder or has no suffix",
            f"say what it shall become with {' or '.join(folders)}, or name a file such as "
            f"{path.rstrip('/') + '.parquet'!r}",
        )
    suffixes = [s for one in FORMATS.values() for s in one.suffixes]
    raise OutputError("destination", *_advice(path, suffixes, "write_as"))


def _folder_format(path: str) -> str:
    if any(os.path.exists(os.path.join(path, name)) for name in METADATA_NAMES):
        return "imagefolder"
    if os.path.isdir(os.path.join(path, "img_emb")):
        return "clip-retrieval"
    if any(VISIBLE.fullmatch(name) for name in os.listdir(path)) or OutputPaths.of(path).parts():
        return "parts"
    for _, _, names in os.walk(path):
        if any(name.lower().endswith((".txt", ".caption")) for name in names):
            return "sidecar"
    raise SourceError(
        "sources",
        f"The folder {path!r} holds no metadata.jsonl, no part-00000.parquet, no img_emb and no "
        ".txt or .caption files",
        "name a file, a pattern in quotes such as 'parts/*.jsonl', or caption its images first",
    )


def _advice(path: str, suffixes: Iterable[str], field: str) -> tuple[str, str]:
    """Problem and remedy for a path with none of the ``suffixes``."""
    known = list(dict.fromkeys(suffixes))
    suffix = os.path.splitext(path.lower())[1]
    close = difflib.get_close_matches(suffix, known, 1)
    meant = _MISSPELLINGS.get(suffix) or next(iter(close), None)
    problem = f"{path!r} has the unknown suffix {suffix!r}" if suffix else f"{path!r} has no suffix"
    hint = f"did you mean {meant}?" if meant in known else f"or say what it is with {option(field)}"
    return f"{problem}; known are {', '.join(known)}", hint


def _check_name(field: str, given: str, names: Iterable[str]) -> None:
    if given not in FORMATS:
        close = difflib.get_close_matches(given, list(names), 1)
        hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(names)}"
        raise OptionError(field, f"{option(field)} {given} is no format", hint)
