"""Lazily loaded weights: shape and dtype are known, the tensor is read when it is needed."""

from __future__ import annotations

import pickle
import re
import warnings
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.safetensors_file import open_safetensors

# As safetensors spells them (https://github.com/huggingface/safetensors#format).
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip


@dataclass(frozen=True)
class Weight:
    """One weight, not loaded yet."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]  # reads it each time; the tensor is not to be written to

    @classmethod
    def of(cls, tensor: Tensor) -> Weight:
        """A weight that is in memory, or mapped into it, already."""
        return cls(tuple(tensor.shape), tensor.dtype, lambda: tensor)

    @property
    def nbytes(self) -> int:
        """Its size in bytes."""
        return prod(self.shape) * self.dtype.itemsize

    def to(self, dtype: torch.dtype) -> Weight:
        """The same in another precision; only numbers with a fraction have one."""
        if dtype == self.dtype or not self.dtype.is_floating_point:
            return self
        return Weight(self.shape, dtype, lambda: self.load().to(dtype))


Weights = dict[str, Weight]
Progress = Callable[[int, int], None]  # bytes written so far, bytes in all


def read_weights(files: Iterable[Path]) -> Weights:
    """The weights of safetensors files, or of pickles of a plain state dict.

    Raises ModelError naming the file that is damaged or holds more than tensors.
    """
    weights: Weights = {}
    for file in files:
        weights |= _safetensors(file) if file.suffix == ".safetensors" else _state_dict(file)
    return weights


def read_pickle(file: Path) -> Any:
    """What a ``.pth`` or ``.bin`` file holds; tensors are mapped, not read.

    Nothing but tensors and plain values is unpickled. Raises ModelError for anything else.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of pickle protocols that torch does not write
            return _load(file)
    except pickle.UnpicklingError as error:
        # From torch's long message: ``posix.system`` and the like.
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        refused = found[1] if found else "an object that is no tensor"
        raise ModelError(
            None,
            f"{file} is damaged, or holds more than weights ({refused})",
            "it is not read, because that could run any code",
        ) from error
    except OSError as error:
        raise ModelError(None, f"{file} cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged pickle may raise anything
        raise ModelError(None, f"{file} is damaged or cut short", "fetch it again") from error


def _load(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
    # Files from before torch 1.6 are no zip archives and cannot be mapped.
    return torch.load(file, map_location="cpu", weights_only=True)


def tensors_of(value: Any) -> dict[str, Tensor] | None:
    """``value`` if it is a state dict, else None."""
    if not isinstance(value, dict) or not value:
        return None
    if not all(isinstance(k, str) and isinstance(v, Tensor) for k, v in value.items()):
        return None
    return value


def _safetensors(file: Path) -> Weights:
    def loader(name: str) -> Callable[[], Tensor]:
        def load() -> Tensor:
            # Opened for each weight, so that the file is mapped only while it is needed.
            with safe_open(file, "pt") as opened:
                tensor: Tensor = opened.get_tensor(name)
                return tensor

        return load

    weights: Weights = {}
    try:
        with open_safetensors(file) as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no dictionary
                found = opened.get_slice(name)
                dtype = DTYPES.get(found.get_dtype())
                if dtype is None:
                    raise ModelError(
                        None,
                        f"{file} stores {name} as {found.get_dtype()}, which is not converted",
                        "use a copy of the model in float32, bfloat16 or float16",
                    )
                weights[name] = Weight(tuple(found.get_shape()), dtype, loader(name))
    except OSError as error:
        raise ModelError(None, f"{file} cannot be read ({error.strerror})") from error
    return weights


def _state_dict(file: Path) -> Weights:
    tensors = tensors_of(read_pickle(file))
    if tensors is None:
        raise ModelError(None, f"{file} holds something else than named weights")
    return {name: Weight.of(tensor) for name, tensor in tensors.items()}
