"""How much a precision (or a quantisation) changes what a model says."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from blip2cli.doctor.model_under_test import Patient
from blip2cli.doctor.observe import retrieval_scores
from blip2cli.doctor.report import Outcome, fail, ok, skipped, warn
from blip2cli.model.loading.load import load_model
from blip2cli.model.placement.dtype import Placement
from blip2cli.model.vision.features import ImageFeatures
from blip2cli.model.wrapper import Blip2
from blip2cli.options import Quantize

STEPS = 8
# Shares of equal choices (likeliest tokens, best texts) below which a precision is called
# harmful, or worth a look.
HARMFUL, NOTABLE = 0.75, 0.9


@dataclass(frozen=True)
class Agreement:
    """Two versions of one model, asked the same."""

    same: int  # how often the likeliest token, or the best text, was the same
    asked: int
    error: float  # root mean square difference of the scores, relative to their spread

    @property
    def share(self) -> float:
        """Share of equal choices."""
        return self.same / self.asked


def precision(patient: Patient) -> Outcome:
    """The chosen precision, or the chosen quantisation, says what float32 says."""
    model, placement = patient.model, patient.placement
    name = placement.quantize or _version(model)
    if name is None:
        return skipped("the model runs in float32, to which others would be compared")
    lacking = patient.lacks_memory(4 if placement.quantize is None else 5)
    if lacking is not None:
        return skipped(f"no room for a float32 copy beside it: {lacking}")
    exact = Placement(placement.device, torch.float32, "to compare with")
    reference = _loaded(patient, exact, plain=True)
    if placement.quantize is None:
        return judge(compare(model, reference, patient.pixels, patient.observation.features), name)
    return judge(compare(_loaded(patient, placement), reference, patient.pixels), name)


def _loaded(patient: Patient, placement: Placement, plain: bool = False) -> Blip2:
    """One more copy of the model."""
    weights = load_model(patient.checkpoint, placement, plain)
    like = patient.model
    return Blip2(like.name, like.family, weights, like.codec, like.spec, placement.reason)


def _instead(name: str) -> str:
    return "without --quantize" if name in get_args(Quantize) else "with --dtype float32"


def judge(found: Agreement, name: str) -> Outcome:
    """What to say of the agreement of ``name`` with float32."""
    said = (
        f"{found.same} of {found.asked} choices are those of float32; scores differ by "
        f"{100 * found.error:.2g} %"
    )
    if found.share < HARMFUL or not math.isfinite(found.error):
        return fail(f"{name}: {said}", f"run this model {_instead(name)}.")
    if found.share < NOTABLE:
        return warn(f"{name}: {said}", f"compare some captions with those made {_instead(name)}.")
    return ok(said)


@torch.inference_mode()
def compare(
    subject: Blip2, reference: Blip2, pixels: Tensor, seen: ImageFeatures | None = None
) -> Agreement:
    """Let both read what ``reference`` writes about uint8 pixels [N, 3, H, W], token by token.

    ``subject`` may be any version of the same model: in another precision, or quantised.
    ``seen`` are its features of these pixels, if they are known.
    """
    one = subject.features(pixels) if seen is None else seen
    other = reference.features(pixels)
    if subject.retrieval is not None and reference.retrieval is not None:
        # [N, 3, T]: which text suits a picture best, by each score.
        ours = retrieval_scores(subject.retrieval, one).transpose(1, 2).cpu()
        theirs = retrieval_scores(reference.retrieval, other).transpose(1, 2).cpu()
    else:
        theirs, tokens = _scores(reference, other, None)
        ours, _ = _scores(subject, one, tokens)
    best = ours.argmax(-1) == theirs.argmax(-1)
    error = (ours - theirs).pow(2).mean().sqrt() / theirs.std().clamp_min(1e-12)
    return Agreement(int(best.sum()), best.numel(), error.item())


def _scores(model: Blip2, features: ImageFeatures, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
    """Raw scores [N, STEPS, V] before each token of a caption, float32 on the CPU, and the tokens.

    ``tokens`` [N, STEPS - 1] are taken as written; without them the likeliest are.
    """
    if tokens is None:
        tokens = torch.zeros((len(features), 0), dtype=torch.long)
        for _ in range(STEPS - 1):
            best = model.scores(features, None, tokens)[:, -1].argmax(-1, keepdim=True)
            tokens = torch.cat((tokens, best.cpu()), dim=1)
    return model.scores(features, None, tokens).float().cpu(), tokens


def _version(model: Blip2) -> str | None:
    """What is compared: a precision, "quantised", or None for a model in float32 throughout."""
    numbers = {tensor.dtype for tensor in (*model.model.parameters(), *model.model.buffers())}
    numbers -= {torch.int64, torch.bool}  # positions and masks
    if numbers == {torch.float32}:
        return None
    if all(dtype.is_floating_point and dtype.itemsize > 1 for dtype in numbers):
        return str(model.dtype).removeprefix("torch.")
    return "quantised"
