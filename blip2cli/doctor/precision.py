"""How much a precision (or a quantisation) changes what a model says."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from blip2cli.doctor.observe import retrieval_scores
from blip2cli.doctor.patient import Patient
from blip2cli.doctor.report import Outcome, fail, ok, skipped, warn
from blip2cli.model.dtype import Placement
from blip2cli.model.language import build_prefix, prefill
from blip2cli.model.load import load_model
from blip2cli.model.quiet import hushed
from blip2cli.model.wrapper import Blip2

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
    """The chosen precision says what float32 says."""
    model = patient.model
    if model.dtype == torch.float32:
        return skipped("the model runs in float32, to which others would be compared")
    lacking = patient.lacks_memory(4)
    if lacking is not None:
        return skipped(f"no room for a float32 copy beside it: {lacking}")
    exact = Placement(patient.placement.device, torch.float32, "to compare with")
    with hushed():
        weights = load_model(patient.checkpoint, exact)
    reference = Blip2(model.name, model.family, weights, model.codec, model.spec, exact.reason)
    return judge(compare(model, reference, patient.pixels), _name(model.dtype))


def judge(found: Agreement, name: str) -> Outcome:
    """What to say of the agreement of ``name`` with float32."""
    said = (
        f"{found.same} of {found.asked} choices are those of float32; scores differ by "
        f"{100 * found.error:.2g} %"
    )
    if not found.share >= HARMFUL:
        return fail(f"{name}: {said}", "run this model with --dtype float32.")
    if found.share < NOTABLE:
        return warn(f"{name}: {said}", "compare some captions with those of --dtype float32.")
    return ok(said)


@torch.inference_mode()
def compare(subject: Blip2, reference: Blip2, pixels: Tensor, steps: int = STEPS) -> Agreement:
    """Let both read what ``reference`` writes about uint8 pixels [N, 3, H, W], token by token.

    ``subject`` may be any version of the same model: in another precision, or quantised.
    """
    if subject.retrieval is not None and reference.retrieval is not None:
        # [N, 3, T]: which text suits a picture best, by each score.
        ours, theirs = (
            retrieval_scores(retrieval, model.features(pixels)).transpose(1, 2).cpu()
            for retrieval, model in (
                (subject.retrieval, subject),
                (reference.retrieval, reference),
            )
        )
    else:
        theirs, tokens = _scores(reference, pixels, None, steps)
        ours, _ = _scores(subject, pixels, tokens, steps)
    best = ours.argmax(-1) == theirs.argmax(-1)
    error = (ours - theirs).pow(2).mean().sqrt() / theirs.std().clamp_min(1e-12)
    return Agreement(int(best.sum()), best.numel(), error.item())


def _scores(
    model: Blip2, pixels: Tensor, tokens: Tensor | None, steps: int
) -> tuple[Tensor, Tensor]:
    """Raw scores [N, S, V] after each token of a caption, float32 on the CPU, and the tokens.

    ``tokens`` [N, S] are read one by one; without them the likeliest are.
    """
    features = model.features(pixels)
    start = torch.tensor([model.codec.encode(None)] * len(pixels), device=model.device)
    prefix = build_prefix(model.model, model.family, features.language_inputs, start)
    scores, state = prefill(model.model, model.family, prefix)
    kept, read = [scores], []
    for step in range(steps - 1):
        chosen = scores.argmax(-1) if tokens is None else tokens[:, step].to(model.device)
        scores = state.step(chosen)
        kept.append(scores)
        read.append(chosen)
    return torch.stack([s.float().cpu() for s in kept], dim=1), torch.stack(read, dim=1).cpu()


def _name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")
