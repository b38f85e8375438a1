"""Stored weights, read lazily: shape and dtype are known, the tensor is read when it is needed."""

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
from blip2cli.model.quantize.int8_weights import QuantizedWeight
from blip2cli.system.memory import is_exhaustion

# As safetensors spells them (https://github.com/huggingface/safetensors#format).
DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16,
    "F8_E4M3": torch.float8_e4m3fn, "F8_E5M2": torch.float8_e5m2,
    "I64": torch.int64, "I32": torch.int32, "I16": torch.int16, "I8": torch.int8,
    "U64": torch.uint64, "U32": torch.uint32, "U16": torch.uint16, "U8": torch.uint8,
    "BOOL": torch.bool,
}  # fmt: skip
# Where other programs put the state dict in what they save: LAVIS, Lightning, DeepSpeed.
_STATE_DICTS = ("model", "state_dict", "module")

_REMEDY = "use a safetensors copy of the model"
# What torch reads only with code of any kind, by its message.
_OTHER_PICKLES = (
    ("TorchScript", "a TorchScript archive"),
    ("legacy .tar", "in the tar format of torch before 0.2"),
)


@dataclass(frozen=True)
class Weight:
    """One weight, not loaded yet."""

    shape: tuple[int, ...]
    dtype: torch.dtype
    load: Callable[[], Tensor]  # reads it each time; the tensor is not to be written to
    # Of a weight stored in int8: reads its numbers and scales; ``load`` dequantizes them.
    quantized: Callable[[], QuantizedWeight] | None = None
    mapped: bool = False  # ``load`` gives the numbers as they lie in a mapped safetensors file

    @classmethod
    def of(cls, tensor: Tensor) -> Weight:
        """A weight that is in memory, or mapped into it, already."""
        tensor = tensor.detach()  # some pickles hold parameters
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


def read_weights(files: Iterable[Path], keep_open: bool = False) -> Weights:
    """The weights of safetensors files, or of pickles of a state dict.

    With ``keep_open`` a file stays mapped between weights that are read in order: to open it again
    for each takes longer, and memory holds no more of it than one weight. Raises ModelError naming
    a file that is damaged or holds more than tensors, and a weight that is in two files.
    """
    weights: Weights = {}
    places: dict[str, Path] = {}
    reader = _Reader(keep_open)
    for file in files:
        found = reader.weights(file) if file.suffix == ".safetensors" else _state_dict(file)
        for name in found.keys() & places.keys():
            raise ModelError(
                None,
                f"{file.parent} holds {name} twice, in {places[name].name} and in {file.name}",
                "save the model again",
            )
        places |= dict.fromkeys(found, file)
        weights |= found
    return weights


class _Reader:
    """Reads tensors of safetensors files; the last file may stay open."""

    def __init__(self, keep_open: bool) -> None:
        self.keep_open = keep_open
        self.last: tuple[Path, Any] | None = None

    def weights(self, file: Path) -> Weights:
        """What a file holds, by its header."""
        weights: Weights = {}
        try:
            with open_safetensors(file) as opened:
                for name in opened.keys():  # noqa: SIM118 - it is no dictionary
                    found = opened.get_slice(name)
                    dtype = DTYPES.get(found.get_dtype())
                    if dtype is None:
                        raise ModelError(
                            None,
                            f"{file} stores {name} as {found.get_dtype()}, which is not read",
                            "use a copy of the model in float32, bfloat16 or float16",
                        )
                    weights[name] = Weight(
                        tuple(found.get_shape()), dtype, self._loader(file, name), mapped=True
                    )
        except OSError as error:
            raise ModelError(None, f"{file} cannot be read ({error.strerror})") from error
        return weights

    def _loader(self, file: Path, name: str) -> Callable[[], Tensor]:
        def load() -> Tensor:
            last = self.last
            opened = last[1] if last and last[0] == file else safe_open(file, "pt")
            if self.keep_open:
                self.last = file, opened
            tensor: Tensor = opened.get_tensor(name)
            return tensor

        return load


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
            f"{file} is damaged, or holds more than weights ({refused}), and is not read, because "
            "that could run any code",
            _REMEDY,
        ) from error
    except OSError as error:
        raise ModelError(None, f"{file} cannot be read ({error.strerror})") from error
    except Exception as error:  # a damaged pickle may raise anything
        if is_exhaustion(error):
            raise
        for mark, kind in _OTHER_PICKLES:
            if mark in str(error):
                raise ModelError(None, f"{file} is {kind}, which is not read", _REMEDY) from error
        raise ModelError(
            None, f"{file} is damaged or cut short", f"fetch it again, or {_REMEDY}"
        ) from error


def _load(file: Path) -> Any:
    try:
        return torch.load(file, map_location="cpu", weights_only=True, mmap=True)
    except RuntimeError as error:
        if "mmap can only be used" not in str(error):
            raise
    # Files from before torch 1.6 are no zip archives and cannot be mapped.
    return torch.load(file, map_location="cpu", weights_only=True)


def tensors_of(value: Any) -> dict[str, Tensor] | None:
    """``value`` if it is a state dict, or the one inside it; else None."""
    inner = (value.get(name) for name in _STATE_DICTS) if isinstance(value, dict) else ()
    for found in (*inner, value):
        pairs = list(found.items()) if isinstance(found, dict) else []
        if pairs and all(isinstance(name, str) and _is_plain(tensor) for name, tensor in pairs):
            return dict(pairs)
    return None


def _is_plain(value: Any) -> bool:
    """Whether a value is a tensor whose numbers are there, one by one."""
    return isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta


def _state_dict(file: Path) -> Weights:
    tensors = tensors_of(read_pickle(file))
    if tensors is None:
        raise ModelError(
            None,
            f"{file} holds something else than named weights",
            f"save the model's state_dict() by itself, or {_REMEDY}",
        )
    return {name: Weight.of(tensor) for name, tensor in tensors.items()}
