"""Checks of the weights: that they load, are all used, and are numbers."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor

from blip2cli.doctor.model_under_test import Patient
from blip2cli.doctor.report import Outcome, fail, ok, warn
from blip2cli.doctor.settings import one_matrix
from blip2cli.model.checkpoint.directory import Checkpoint
from blip2cli.model.loading.load import TIED_NAMES, check_safetensors

# Counters that older transformers saved along and that are no weights.
_IGNORED = ("position_ids",)


def load(patient: Patient) -> Outcome:
    """The weights load, none missing; what is wrong, raises."""
    model = patient.model.model
    count = sum(weight.numel() for weight in model.parameters())
    kind = "safetensors" if patient.checkpoint.safetensors else "pickles"
    return ok(f"{_large(count)} numbers from {kind}, in {_name(patient.model.dtype)}")


def unused_weights(patient: Patient) -> Outcome:
    """No weight in the files is left out, as one under a mistaken name would be."""
    known = patient.model.model.state_dict().keys() | TIED_NAMES.keys()
    left = sorted(
        name
        for name in stored_names(patient.checkpoint)
        if name not in known and not name.endswith(_IGNORED)
    )
    if not left:
        return ok("every weight in the files has its place")
    return warn(
        f"used by nothing: {_some(left)}",
        "save the model again, unless they are left over from a training on purpose.",
    )


def finite_weights(patient: Patient) -> Outcome:
    """No weight is NaN or infinite."""
    model = patient.model.model
    wrong = [
        name
        for name, weight in (*model.named_parameters(), *model.named_buffers())
        if weight.is_floating_point() and not _finite(weight)
    ]
    if not wrong:
        return ok("no NaN, nothing infinite")
    return fail(
        f"NaN or infinite numbers in {_some(wrong)}",
        "fetch the model again; if it is your own, take a checkpoint from before the training "
        "diverged.",
    )


def tied_embeddings(patient: Patient) -> Outcome:
    """OPT reads and writes with one matrix; Flan-T5 with two."""
    if one_matrix(patient):
        return ok("one matrix reads and writes")
    if patient.checkpoint.family == "t5":
        return ok("two matrices, as in Flan-T5")
    return fail(
        "the files hold an output matrix (lm_head) that differs from the input embedding, which "
        "OPT has not: one of them is not the trained one",
        "save the model again after tie_weights(), or take lm_head out of the weight files.",
    )


def stored_names(checkpoint: Checkpoint) -> Iterator[str]:
    """The name of every tensor in the weight files."""
    shapes = stored_shapes(checkpoint)
    if shapes is not None:
        yield from shapes
        return
    for file in checkpoint.weights:
        # Mapped into memory: names are read, numbers stay on disk.
        held: dict[str, Any] = torch.load(file, mmap=True, weights_only=True)
        yield from held


def stored_shapes(checkpoint: Checkpoint) -> dict[str, list[int]] | None:
    """The shape of every tensor, by name, from safetensors headers; None for pickles."""
    if not checkpoint.safetensors:
        return None
    found: dict[str, list[int]] = {}
    for file in checkpoint.weights:
        check_safetensors(file)
        with file.open("rb") as stream:
            length = int.from_bytes(stream.read(8), "little")
            header: dict[str, Any] = json.loads(stream.read(length))
        found |= {name: of["shape"] for name, of in header.items() if name != "__metadata__"}
    return found


def _finite(weight: Tensor) -> bool:
    """One pass, without a copy of the weight: NaN and infinity come through to the extremes."""
    if not weight.numel():
        return True
    low, high = torch.aminmax(weight.detach())
    return bool(torch.isfinite(low) and torch.isfinite(high))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _large(count: int) -> str:
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
