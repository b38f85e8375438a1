"""Which format a path is in: by its suffix, by what lies in a folder, or as ``--from/--to`` say."""

from __future__ import annotations

import difflib
import os
import re
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING

from blip2cli.errors import OptionError, OutputError, SourceError
from blip2cli.model.checkpoint.embedded import EMBEDDED
from blip2cli.storage.opening import is_remote

if TYPE_CHECKING:
    from blip2cli.convert import Format

_CHECKPOINT_SUFFIXES = (".pth", ".pt", ".bin", ".safetensors", ".ckpt")
_CHECKPOINT_FILES = ("config.json", "model.safetensors", "pytorch_model.bin")
_MODEL_NAME = re.compile(r"[A-Za-z0-9][\w.-]*/[\w.-]+", re.ASCII)  # owner/name, on the hub
_SPELLINGS = {
    ".ndjson": ".jsonl", ".jl": ".jsonl", ".gz": ".jsonl.gz", ".pq": ".parquet",
    ".parq": ".parquet", ".xlsx": ".csv", ".tgz": ".tar", ".npz": ".npy",
}  # fmt: skip
METADATA_NAMES = ("metadata.jsonl", "metadata.parquet", "metadata.csv")


def is_checkpoint(path: str) -> bool:
    """Whether ``path`` is a model's weights rather than its results."""
    if os.path.isdir(path):
        return any(os.path.exists(os.path.join(path, name)) for name in _CHECKPOINT_FILES)
    return path.lower().endswith(_CHECKPOINT_SUFFIXES)


def is_model(name: str, formats: Mapping[str, Format]) -> bool:
    """Whether ``name`` means a checkpoint: a path to one, an embedded model, or a hub id.

    Where a folder is called as the hub id's owner, it is taken for a path.
    """
    if name in EMBEDDED or is_checkpoint(name):
        return True
    if os.path.exists(name) or _MODEL_NAME.fullmatch(name) is None:
        return False
    return by_suffix(name, formats) is None and not os.path.isdir(name.partition("/")[0])


def read_format(path: str, given: str | None, formats: Mapping[str, Format]) -> str:
    """The name of the format that ``path`` is read as. Raises SourceError or OptionError."""
    if given is not None:
        readable = [name for name, one in formats.items() if one.readable]
        if given not in formats:
            raise _unknown("--from", given, readable)
        if not formats[given].readable:
            raise OptionError(
                f"--from {given}: this format is only written, not read; read are "
                f"{', '.join(readable)}."
            )
    if is_remote(path):
        raise SourceError(f"{path!r} is on another machine; copy it here first.")
    if not os.path.exists(path):
        raise SourceError(f"There is no file or folder {path!r}; check the path.")
    if given is not None:
        return given
    if os.path.isdir(path):
        return _folder(path)
    name = by_suffix(path, formats)
    if name is not None and formats[name].readable:
        return name
    readable = [s for one in formats.values() if one.readable for s in one.suffixes]
    raise SourceError(_advice(path, readable, "--from"))


def write_format(path: str, given: str | None, formats: Mapping[str, Format]) -> str:
    """The name of the format that is written. Raises OutputError or OptionError."""
    if is_remote(path):
        raise OutputError(f"{path!r} is on another machine; write here and copy it there.")
    if given is not None:
        if given not in formats:
            raise _unknown("--to", given, formats)
        return given
    name = by_suffix(path, formats)
    if name is not None:
        return name
    if path.lower().endswith(".json"):
        raise OutputError(
            f"{path!r} may be several things; add --to coco, --to vqa or --to llava, or name a "
            ".jsonl file for rows as they are."
        )
    if os.path.isdir(path) or path.endswith("/") or not os.path.splitext(path)[1]:
        folders = [f"--to {name}" for name, one in formats.items() if one.folder]
        raise OutputError(
            f"{path!r} is a folder or has no suffix; say what it shall become with "
            f"{' or '.join(folders)}, or name a file such as {path.rstrip('/') + '.parquet'!r}."
        )
    raise OutputError(_advice(path, [s for one in formats.values() for s in one.suffixes], "--to"))


def by_suffix(path: str, formats: Mapping[str, Format]) -> str | None:
    """The format with the longest suffix that ``path`` ends in."""
    lower = os.path.basename(path).lower()
    fitting = [
        (len(suffix), name)
        for name, one in formats.items()
        for suffix in one.suffixes
        if lower.endswith(suffix) and lower != suffix
    ]
    return max(fitting)[1] if fitting else None


def _folder(path: str) -> str:
    if any(os.path.exists(os.path.join(path, name)) for name in METADATA_NAMES):
        return "imagefolder"
    if os.path.isdir(os.path.join(path, "img_emb")):
        return "clip-retrieval"
    for _, _, names in os.walk(path):
        if any(name.lower().endswith((".txt", ".caption")) for name in names):
            return "sidecar"
    raise SourceError(
        f"The folder {path!r} holds no metadata.jsonl, no img_emb and no .txt or .caption files; "
        "name a file, a pattern in quotes such as 'parts/*.jsonl', or caption its images first."
    )


def _advice(path: str, suffixes: Iterable[str], option: str) -> str:
    known = list(dict.fromkeys(suffixes))
    suffix = os.path.splitext(path.lower())[1]
    meant = _SPELLINGS.get(suffix) or next(iter(difflib.get_close_matches(suffix, known, 1)), None)
    hint = f"did you mean {meant}?" if meant in known else f"or say what it is with {option}."
    start = f"{path!r} has the unknown suffix {suffix!r}" if suffix else f"{path!r} has no suffix"
    return f"{start}; known are {', '.join(known)}; {hint}"


def _unknown(option: str, given: str, names: Iterable[str]) -> OptionError:
    close = difflib.get_close_matches(given, list(names), 1)
    hint = f"did you mean {close[0]}?" if close else f"choose one of {', '.join(names)}."
    return OptionError(f"{option} {given} is no format; {hint}")
