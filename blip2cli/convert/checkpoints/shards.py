"""Writer of safetensors, one weight at a time, in shards of limited size.

The format (https://github.com/huggingface/safetensors#format) is a little-endian 64-bit length,
JSON with each weight's dtype, shape and byte range, then the bytes. The library's own writer wants
a whole shard in memory; here one weight is, whatever the size of the shards.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from blip2cli.errors import ModelError, OptionError, option
from blip2cli.model.checkpoint.lazy_weights import DTYPES, Progress, Weight, Weights
from blip2cli.storage.durable import write_all

_DTYPE_NAMES = {dtype: name for name, dtype in DTYPES.items()}


def parse_size(text: str) -> int:
    """Bytes of ``2GB``, ``500 MB`` or ``1GiB``. Raises OptionError."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?)(I?)B?\s*", text.upper())
    size = 0.0
    if found:
        power = " KMGT".index(found[2] or " ")
        size = float(found[1]) * (1024 if found[3] else 1000) ** power
    if size < 1:
        problem = f"{option('max_shard_size')} takes a size such as 2GB or 500MB, not {text}"
        raise OptionError("max_shard_size", problem)
    return int(size)


def plan(weights: Mapping[str, Weight], limit: int) -> list[list[str]]:
    """The names of each shard, in order; one larger than ``limit`` bytes has its own."""
    shards: list[list[str]] = [[]]
    size = 0
    for name, weight in weights.items():
        if shards[-1] and size + weight.nbytes > limit:
            shards.append([])
            size = 0
        shards[-1].append(name)
        size += weight.nbytes
    return shards


def write_shards(
    weights: Weights, folder: Path, limit: int, progress: Progress, stem: str = "model"
) -> None:
    """Write ``model.safetensors``, or its shards and their index, into ``folder``.

    Raises OptionError when a number is too large for the precision that is written, ModelError
    when it is none.
    """
    total = sum(weight.nbytes for weight in weights.values())
    shards = plan(weights, limit)
    index: dict[str, str] = {}
    done = 0
    for number, names in enumerate(shards, 1):
        several = f"-{number:05d}-of-{len(shards):05d}" if len(shards) > 1 else ""
        file = f"{stem}{several}.safetensors"
        index |= dict.fromkeys(names, file)
        for written in _write(folder / file, {name: weights[name] for name in names}):
            done += written
            progress(done, total)
    if len(shards) > 1:
        content = {"metadata": {"total_size": total}, "weight_map": index}
        (folder / f"{stem}.safetensors.index.json").write_text(
            json.dumps(content, indent=2) + "\n", encoding="utf-8"
        )


def _write(file: Path, weights: Weights) -> Iterator[int]:
    """Write one file; yields the bytes of each weight when it is written."""
    # Wide dtypes first: then every weight is aligned to the size of its numbers.
    ordered = dict(sorted(weights.items(), key=lambda item: -item[1].dtype.itemsize))
    header = _header(ordered)
    with file.open("wb", buffering=0) as stream:
        stream.write(len(header).to_bytes(8, "little") + header)
        for name, weight in ordered.items():
            tensor = weight.load()
            if tuple(tensor.shape) != weight.shape or tensor.dtype != weight.dtype:
                raise AssertionError(f"{name} is {tensor.shape} {tensor.dtype}, not {weight}")
            check_finite(name, tensor)
            array: Any = tensor.contiguous().reshape(-1).view(torch.uint8).numpy()
            write_all(stream.fileno(), array)
            del array
            del tensor  # before the next one is read
            yield weight.nbytes
        os.fsync(stream.fileno())


def _header(weights: Weights) -> bytes:
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, weight in weights.items():
        entries[name] = {
            "dtype": _DTYPE_NAMES[weight.dtype],
            "shape": list(weight.shape),
            "data_offsets": [position, position + weight.nbytes],
        }
        position += weight.nbytes
    text = json.dumps(entries, separators=(",", ":")).encode()
    return text + b" " * (-len(text) % 8)


def cast(weights: Weights, dtype: torch.dtype) -> Weights:
    """The weights in ``dtype``. Reading one that is too large for it raises OptionError."""
    return {name: _cast(name, weight, dtype) for name, weight in weights.items()}


def _cast(name: str, weight: Weight, dtype: torch.dtype) -> Weight:
    narrower = torch.finfo(dtype).max < (
        torch.finfo(weight.dtype).max if weight.dtype.is_floating_point else 0
    )
    if not narrower:
        return weight.to(dtype)

    def load() -> Tensor:
        before = weight.load()
        after = before.to(dtype)
        if not _finite(after) and _finite(before):
            raise OptionError(
                "dtype",
                f"{option('dtype')} {str(dtype).removeprefix('torch.')} cannot hold {name} (up to "
                f"{before.abs().max().item():.3g})",
                "use bfloat16",
            )
        return after

    return Weight(weight.shape, dtype, load)


def check_finite(name: str, tensor: Tensor) -> None:
    """Raise ModelError when a weight has NaN or infinite numbers, as loading it would."""
    if tensor.is_floating_point() and tensor.dtype.itemsize > 1 and not _finite(tensor):
        raise ModelError(
            None,
            f"the model has numbers in {name} that are NaN or infinite",
            "fetch it again; if it is your own, take a checkpoint from before its training "
            "diverged",
        )


def _finite(tensor: Tensor) -> bool:
    """Whether all numbers are finite, without allocating a tensor of the same size."""
    return not tensor.numel() or all(bool(end.isfinite()) for end in tensor.aminmax())
