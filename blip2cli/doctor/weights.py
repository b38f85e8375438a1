"""Checks of the weights: they load, all are used, all are finite, ties are as trained."""

from __future__ import annotations

import torch
from torch import Tensor

from blip2cli.doctor.model_under_test import ModelUnderTest
from blip2cli.doctor.report import Outcome, fail, ok, warn
from blip2cli.doctor.settings import has_tied_embeddings
from blip2cli.model.checkpoint.safetensors_file import open_safetensors
from blip2cli.model.checkpoint.weight_files import Checkpoint


def load(subject: ModelUnderTest) -> Outcome:
    """The weights load, none missing; raises ModelError otherwise."""
    model = subject.model.model
    count = sum(weight.numel() for weight in model.parameters())
    kind = "safetensors" if subject.checkpoint.safetensors else "pickles"
    return ok(
        f"{_large(count)} numbers from {kind}, in {str(subject.model.dtype).removeprefix('torch.')}"
    )


def unused_weights(subject: ModelUnderTest) -> Outcome:
    """The model uses every weight in the files, as its configuration describes them."""
    remarks = subject.model.model.remarks
    if not remarks:
        return ok("every weight in the files has its place")
    return warn(
        "; ".join(remarks),
        "save the model again, unless they are left over from a training on purpose",
    )


def finite_weights(subject: ModelUnderTest) -> Outcome:
    """No weight is NaN or infinite."""
    model = subject.model.model
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
        "diverged",
    )


def tied_embeddings(subject: ModelUnderTest) -> Outcome:
    """OPT ties input and output embedding; others have two."""
    if has_tied_embeddings(subject):
        return ok("one matrix reads and writes")
    if not subject.checkpoint.family.tied_embeddings:
        return ok(f"two matrices, as usual {subject.checkpoint.family.label}")
    if subject.checkpoint.adapters:
        return ok("two matrices, of which an adapter trained one")
    if subject.config.text_config.tie_word_embeddings is False:
        return ok("two matrices, as tie_word_embeddings in config.json says")
    return fail(
        "the files hold an output matrix (lm_head) that differs from the input embedding, which "
        "OPT has not: one of them is not the trained one",
        "save the model again after tie_weights(), or take lm_head out of the weight files",
    )


def stored_shapes(checkpoint: Checkpoint) -> dict[str, list[int]] | None:
    """The shape of every tensor, by name, from safetensors headers; None for pickles."""
    if not checkpoint.safetensors:
        return None
    shapes: dict[str, list[int]] = {}
    for file in checkpoint.weights:
        with open_safetensors(file) as opened:
            for name in opened.keys():  # noqa: SIM118 - it is no dictionary
                shapes[name] = opened.get_slice(name).get_shape()
    return shapes


def _finite(weight: Tensor) -> bool:
    """One pass without a copy: NaN and infinity show in the minimum or the maximum."""
    if not weight.numel():
        return True
    low, high = torch.aminmax(weight.detach())
    return bool(torch.isfinite(low) and torch.isfinite(high))


def _some(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(names[:3]) + more


def _large(count: int) -> str:
    return f"{count / 1e9:.1f} billion" if count >= 1e9 else f"{count / 1e6:.1f} million"
