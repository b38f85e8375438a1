"""Check of a reduced precision, or of quantised weights, against float32."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from blip2cli.doctor.behaviour import relative_error
from blip2cli.doctor.forward_pass import retrieval_scores
from blip2cli.doctor.model_under_test import ModelUnderTest
from blip2cli.doctor.report import Outcome, fail, ok, skipped, warn
from blip2cli.errors import option
from blip2cli.model.loading.load import load_model
from blip2cli.model.nets.blip2 import GenerationModel
from blip2cli.model.placement.dtype import Placement
from blip2cli.model.quantize.cuda_layers import round_as_in_decode_steps
from blip2cli.model.vision.features import ImageFeatures
from blip2cli.model.wrapper import Blip2
from blip2cli.options import Quantize

STEPS = 8
# Shares of equal argmaxes (likeliest tokens, best texts) below which a precision fails, or is
# warned of.
HARMFUL, NOTABLE = 0.75, 0.9


@dataclass(frozen=True)
class Agreement:
    """How far two versions of one model agree on the same inputs."""

    same: int  # how often the likeliest token, or the best text, was the same
    compared: int
    error: float  # root mean square difference of the scores, relative to their spread

    @property
    def share(self) -> float:
        """Share of equal choices."""
        return self.same / self.compared


def precision(subject: ModelUnderTest) -> Outcome:
    """The model's precision, or its quantised weights, give what float32 gives."""
    model, placement = subject.model, subject.placement
    name = placement.quantize or _version(model)
    if name is None:
        return skipped("the model runs in float32, to which others would be compared")
    lacking = subject.missing_memory(4 if placement.quantize is None else 5)
    if lacking is not None:
        return skipped(f"no memory for a float32 copy beside it: {lacking}")
    exact = Placement(placement.device, torch.float32, "to compare with")
    reference = _loaded(subject, exact, plain=True)
    if placement.quantize is None:
        return judge(compare(model, reference, subject.pixels, subject.forward_pass.features), name)
    return judge(compare(_loaded(subject, placement), reference, subject.pixels), name)


def _loaded(subject: ModelUnderTest, placement: Placement, plain: bool = False) -> Blip2:
    """One more copy of the model."""
    weights = load_model(subject.checkpoint, placement, plain)
    if isinstance(weights, GenerationModel):
        round_as_in_decode_steps(weights.language_model)
    model = subject.model
    return Blip2(model.name, model.family, weights, model.codec, model.spec, placement.reason)


def judge(found: Agreement, name: str) -> Outcome:
    """The outcome of comparing ``name`` with float32."""
    summary = (
        f"{found.same} of {found.compared} choices are those of float32; scores differ by "
        f"{100 * found.error:.2g} %"
    )
    instead = f"with {option('dtype')} float32"
    if name in get_args(Quantize):
        instead = f"without {option('quantize')}"
    if found.share < HARMFUL or not math.isfinite(found.error):
        return fail(f"{name}: {summary}", f"run this model {instead}")
    if found.share < NOTABLE:
        return warn(f"{name}: {summary}", f"compare some captions with those made {instead}")
    return ok(summary)


@torch.inference_mode()
def compare(
    model: Blip2, reference: Blip2, pixels: Tensor, features: ImageFeatures | None = None
) -> Agreement:
    """Compare both models on uint8 pixels [N, 3, H, W].

    Language models by the logits at every token of the ``reference``'s greedy captions (teacher
    forcing), retrieval models by their scores. ``model`` may be any version of the same model: in
    another precision, or quantised. ``features`` are its features of these pixels, where they
    have been computed.
    """
    one = model.features(pixels) if features is None else features
    other = reference.features(pixels)
    if model.retrieval is not None and reference.retrieval is not None:
        # [N, 3, T]: the argmax is the best text of a picture, by each score.
        ours = retrieval_scores(model.retrieval, one).transpose(1, 2).cpu()
        theirs = retrieval_scores(reference.retrieval, other).transpose(1, 2).cpu()
    else:
        theirs, tokens = _logits(reference, other, None)
        ours, _ = _logits(model, one, tokens)
    best = ours.argmax(-1) == theirs.argmax(-1)
    return Agreement(int(best.sum()), best.numel(), relative_error(ours, theirs))


def _logits(model: Blip2, features: ImageFeatures, tokens: Tensor | None) -> tuple[Tensor, Tensor]:
    """The logits [N, STEPS, V] of each token of a caption, float32 on the CPU, and the tokens.

    ``tokens`` [N, STEPS - 1] are forced; without them decoding is greedy.
    """
    if tokens is None:
        tokens = torch.zeros((len(features), 0), dtype=torch.long)
        for _ in range(STEPS - 1):
            best = model.scores(features, None, tokens)[:, -1].argmax(-1, keepdim=True)
            tokens = torch.cat((tokens, best.cpu()), dim=1)
    return model.scores(features, None, tokens).float().cpu(), tokens


def _version(model: Blip2) -> str | None:
    """The version that is compared: a dtype, "quantised", or None when all is float32."""
    numbers = {tensor.dtype for tensor in (*model.model.parameters(), *model.model.buffers())}
    numbers -= {torch.int64, torch.bool}  # positions and masks
    if numbers == {torch.float32}:
        return None
    if all(dtype.is_floating_point and dtype.itemsize > 1 for dtype in numbers):
        return str(model.dtype).removeprefix("torch.")
    return "quantised"
