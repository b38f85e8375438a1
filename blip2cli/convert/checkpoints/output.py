"""The output of a conversion: checks, and a directory or file that appears complete."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from blip2cli.convert.files import new_file, new_folder
from blip2cli.errors import OutputError, option
from blip2cli.model.checkpoint.hub import SMALL_FILES
from blip2cli.model.checkpoint.weight_files import QFORMER_TOKENIZER
from blip2cli.model.quantize.int8_weights import STEM
from blip2cli.sinks.base import disk_errors
from blip2cli.sinks.check_output import check_parent, check_place
from blip2cli.sinks.lock import OutputLock
from blip2cli.storage.atomic import AtomicFile, AtomicFolder
from blip2cli.storage.durable import sync_file

# What a directory with a model holds, those of the hub too.
_OF_A_MODEL = re.compile(
    "|".join(map(re.escape, SMALL_FILES))
    + rf"|{QFORMER_TOKENIZER}"
    + r"|chat_template\.(?:json|jinja)|README\.md|\.gitattributes|\.cache"
    + rf"|(?:model|pytorch_model|{STEM})(?:-\d+-of-\d+)?\.(?:safetensors|bin)(?:\.index\.json)?"
)


def check_destination(out: str, overwrite: bool, folder: bool) -> None:
    """Raise OutputError when ``out`` cannot be created, or must not be replaced."""
    path = Path(out)
    if not folder:
        check_place(out, overwrite, field="destination")
        return
    check_parent(out, "destination")
    if not os.path.lexists(path):
        return
    if not overwrite:
        raise OutputError(
            "destination",
            f"The output {out!r} exists already",
            f"add {option('overwrite')} to replace it, or choose another name",
        )
    names = sorted(os.listdir(path)) if path.is_dir() else []
    if not path.is_dir() or (names and not (path / "config.json").is_file()):
        raise OutputError(
            "destination",
            f"The output {out!r} is no directory with a model (config.json), and is not replaced",
            "choose another name",
        )
    others = [name for name in names if not _OF_A_MODEL.fullmatch(name)]
    if others:
        raise OutputError(
            "destination",
            f"The output {out!r} holds {others[0]!r}, which is no file of a model, and is not "
            "replaced",
            "move that away, or choose another name",
        )


def check_space(out: str, size: int) -> None:
    """Raise OutputError when the disk has less than ``size`` bytes left."""
    free = shutil.disk_usage(Path(os.path.realpath(out)).parent).free
    if free < size:
        raise OutputError(
            "destination",
            f"The output {out!r} takes {size / 1e9:.1f} GB, and the disk has {free / 1e9:.1f} GB "
            "left",
            "free some space, or choose another disk",
        )


_New = TypeVar("_New", AtomicFile, AtomicFolder)


@contextmanager
def new_model(out: str) -> Iterator[Path]:
    """Yield an empty directory that becomes ``out`` in the end, instead of an older one.

    Raises OutputError when another run writes ``out``, RunError when the disk fails.
    """
    with _new(out, new_folder) as folder:
        yield Path(folder.path)
        for inner, _, files in os.walk(folder.path):
            for file in files:
                sync_file(os.path.join(inner, file))


@contextmanager
def new_lavis_file(out: str) -> Iterator[BinaryIO]:
    """Yield a file to write that becomes ``out`` in the end. Raises as ``new_model``."""
    with _new(out, new_file) as file:
        yield file.file


@contextmanager
def _new(out: str, create: Callable[[str], _New]) -> Iterator[_New]:
    with OutputLock(out), disk_errors(out, "nothing that was there was changed"):
        made = create(out)
        try:
            yield made
            made.commit()
        except BaseException:
            made.abort()
            raise
