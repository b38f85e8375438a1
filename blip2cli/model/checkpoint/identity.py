"""What tells the weights of a model from others: by content, whatever it is called.

Two directories with the same tensors and the same small files are one model, under whatever name.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.adapter import FACTORS, Adapter
from blip2cli.model.checkpoint.embedded import embedded_root
from blip2cli.model.checkpoint.hub import SMALL_FILES, current_commit
from blip2cli.model.checkpoint.resolve import HUB_ID, resolve_model
from blip2cli.model.checkpoint.weight_files import Checkpoint
from blip2cli.options import ModelOptions
from blip2cli.sinks import adapted_weights

_COMMIT = re.compile(r"[0-9a-f]{40}")
_WHOLE_BYTES = 16 << 20  # a file of weights up to this size is read whole
_SAMPLE_BYTES = 2048  # at the start and at the end of each tensor
_SAMPLES = 1024  # of a file whose tensors are not known
_HEADER_LIMIT = 100 << 20


def weights_identity(checkpoint: Checkpoint, whole_bytes: int = _WHOLE_BYTES) -> str:
    """``hub:`` and the commit of a model from the hub's cache, else ``files:`` and a digest.

    The digest covers configuration, processor and tokenizer files, and of the weights name, dtype,
    shape and 4 KiB of every tensor; of files up to ``whole_bytes`` all bytes, but for the embedded
    models, which come with a version. It takes a millisecond a thousand tensors, and the disk.
    Adapters that are merged into the weights add a digest of theirs. Raises OSError.
    """
    own = _files_identity(checkpoint, whole_bytes)
    if not checkpoint.adapters:
        return own
    digest = hashlib.sha256()
    for adapter in checkpoint.adapters:
        digest.update(_adapter_identity(adapter, whole_bytes))
    return adapted_weights(own, digest.hexdigest())


def _files_identity(checkpoint: Checkpoint, whole_bytes: int) -> str:
    folder = checkpoint.path
    if (commit := _commit(folder)) is not None:
        return f"hub:{commit}"
    digest = hashlib.sha256()
    for name in SMALL_FILES:
        if (folder / name).is_file():
            digest.update(f"{name}\0".encode() + _digest((folder / name).read_bytes()))
    for line in sorted(line for file in checkpoint.weights for line in _tensors(file, whole_bytes)):
        digest.update(line)
    return f"files:{digest.hexdigest()}"


def _adapter_identity(adapter: Adapter, whole_bytes: int) -> bytes:
    """Its weights, and of its configuration what they are multiplied by; its commit on the hub."""
    commit = _commit(adapter.path)
    if commit is not None:
        return f"{commit} {adapter.scale}\0".encode()
    factors = {name: adapter.settings.get(name) for name in FACTORS}
    digest = hashlib.sha256(json.dumps([factors, adapter.scale], sort_keys=True).encode())
    for line in sorted(_tensors(adapter.weights, whole_bytes)):
        digest.update(line)
    return digest.digest()


def _commit(folder: Path) -> str | None:
    """The commit of a directory in the hub's cache."""
    cached = folder.parent.name == "snapshots" and _COMMIT.fullmatch(folder.name)
    return folder.name if cached else None


def _tensors(file: Path, whole_bytes: int) -> Iterator[bytes]:
    """A line for each tensor; of a pickle, and of what is no safetensors file, one line."""
    with file.open("rb") as stream:
        size = os.fstat(stream.fileno()).st_size
        whole = size <= whole_bytes and embedded_root() not in file.parents
        tensors = _header(stream)
        if tensors is None:
            # Of a pickle the end holds checksums of all tensors (it is a zip file).
            step = max(2 * _SAMPLE_BYTES, size // _SAMPLES)
            tensors = [(f"{at} {size}", at, at + step) for at in range(0, size, step)]
        for name, begin, end in tensors:
            if whole or end - begin <= 2 * _SAMPLE_BYTES:
                data = os.pread(stream.fileno(), end - begin, begin)
            else:
                data = os.pread(stream.fileno(), _SAMPLE_BYTES, begin)
                data += os.pread(stream.fileno(), _SAMPLE_BYTES, end - _SAMPLE_BYTES)
            yield f"{name}\0".encode() + _digest(data)


def _header(stream: BinaryIO) -> list[tuple[str, int, int]] | None:
    """Name, dtype and shape of the tensors in a safetensors file, and where their data begins and
    ends; None for any other file."""
    length = int.from_bytes(stream.read(8), "little")
    if length > _HEADER_LIMIT:
        return None
    try:
        header = json.loads(stream.read(length))
        header.pop("__metadata__", None)
        return [
            (
                f"{name} {about['dtype']} {about['shape']}",
                8 + length + int(about["data_offsets"][0]),
                8 + length + int(about["data_offsets"][1]),
            )
            for name, about in header.items()
        ]
    except (ValueError, RecursionError, AttributeError, KeyError, TypeError, IndexError):
        return None


def _digest(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def model_identity(options: ModelOptions, checkpoint: Checkpoint | None) -> str | None:
    """The identity of the chosen model; without ``checkpoint``, that of a hub model by its commit.

    Adapters are fetched for it, with the model that they change. None where nothing is known.
    Raises OSError.
    """
    if checkpoint is not None:
        return weights_identity(checkpoint)
    if not options.adapter:
        if HUB_ID.fullmatch(options.model) is None:
            return None
        commit = current_commit(options.model, options.revision)
        if commit is not None:
            return f"hub:{commit}"
    with contextlib.suppress(ModelError):  # whoever loads it says what is wrong
        return weights_identity(resolve_model(options))
    return None
