"""A pretended MPS device, Apple's: it has no float64, and only the operations that torch has there.

Which those are says torch's own list of operators, ``native_functions.yaml`` in the package
``torchgen`` that comes with torch: an operator runs on MPS if it has a kernel for MPS, delegates to
one that has, or is composed of others (a key that begins with ``Composite``, or no ``dispatch`` at
all). What is not in that list, a real device refuses with NotImplementedError too, but for the few
that torch has the CPU compute (``aten/src/ATen/mps/MPSFallback.mm``).
"""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torchgen
from torch import Tensor

from tests.pretend import Machine, OnDevice, running

LIST = Path(torchgen.__file__).parent / "packaged/ATen/native/native_functions.yaml"
ABSENT = (torch.float64, torch.complex128)


class Operator(NamedTuple):
    """What the list says of an operator."""

    keys: frozenset[str]  # that it has kernels for
    delegate: str | None


class Mps(Machine):
    """The host with an MPS device; it has one stream, and no graphs."""

    kind = "mps"

    def __init__(self) -> None:
        super().__init__()
        self.refuse = refuse_missing

    def hold(self, held: Tensor, device: torch.device) -> OnDevice:
        if held.dtype in ABSENT:
            raise TypeError(
                "Cannot convert a MPS Tensor to float64 dtype as the MPS framework doesn't support "
                "float64. Please use float32 instead."
            )
        return super().hold(held, device)


@functools.cache
def operators() -> dict[str, Operator]:
    """torch's list, by name and overload, such as ``topk.values``."""
    found = {}
    for entry in re.split(r"^- func: ", LIST.read_text(), flags=re.MULTILINE)[1:]:
        dispatch = re.search(r"^  dispatch:\n((?:    .*\n)+)", entry, re.MULTILINE)
        lines = dispatch[1].splitlines() if dispatch else ["    CompositeImplicitAutograd: it"]
        named = [line.partition(":")[0] for line in lines if not line.lstrip().startswith("#")]
        keys = frozenset(key.strip() for names in named for key in names.split(","))
        delegate = re.search(r"^  structured_delegate: (\S+)", entry, re.MULTILINE)
        found[entry.partition("(")[0]] = Operator(keys, delegate[1] if delegate else None)
    return found


@functools.cache
def runs_on_mps(name: str) -> bool:
    """Whether torch has the operator on MPS."""
    operator = operators().get(name)
    if operator is None:
        return False
    if operator.delegate is not None:
        return runs_on_mps(operator.delegate)
    return any(key == "MPS" or key.startswith("Composite") for key in operator.keys)


def refuse_missing(func: Any, args: Any) -> None:
    """Raise NotImplementedError for an operator that torch does not have there."""
    name = func.name().removeprefix("aten::")
    if not runs_on_mps(name):
        raise NotImplementedError(
            f"The operator 'aten::{name}' is not currently implemented for the MPS device."
        )


@contextlib.contextmanager
def pretended_mps() -> Iterator[Mps]:
    """A machine with an MPS device."""
    machine = Mps()
    stand_ins: list[tuple[Any, str, Any]] = [
        (torch.backends.mps, "is_available", lambda: True),
        (torch.mps, "empty_cache", machine.empty_cache),
        (torch.mps, "synchronize", machine.synchronize),
    ]
    with running(machine, stand_ins):
        yield machine
