"""Checks of what the model does with pictures."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from blip2cli.doctor.model_under_test import Patient
from blip2cli.doctor.report import Outcome, fail, ok, warn
from blip2cli.model.tokenizer.prompts import Prompt, question_prompt
from blip2cli.model.vision.features import ImageFeatures
from blip2cli.options import DecodeOptions
from blip2cli.system.library_logging import silence_libraries

# Layer norms square their input in float32: beyond this that overflows, and T5's norm then gives
# zeros, without an error and without a NaN.
_TOO_LARGE = math.sqrt(torch.finfo(torch.float32).max)
_HALF = torch.finfo(torch.float16).max
# Smallest change, relative to the size of what changes, that is taken for an effect of the
# picture rather than of rounding.
NO_CHANGE = 1e-5
NEW_TOKENS = 8
QUESTION = "what is in the picture?"
# Largest error of the first token's scores against transformers', relative to their spread. Only
# the order of additions differs: the attention of the language model and the row counts.
NEAR = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


def activations(patient: Patient) -> Outcome:
    """Nothing overflows on the way through the model."""
    peaks = patient.observation.peaks
    for peak in peaks:
        if not math.isfinite(peak.value) or peak.value > _TOO_LARGE:
            dtype = str(patient.model.dtype).removeprefix("torch.")
            return fail(
                f"{peak.module} gives {peak.value:.3g} in {dtype}, which overflows there or in "
                "the next layer norm: texts turn to nonsense",
                "run it with --dtype bfloat16 or float32; if that does not help, the weights are "
                "not those of a trained model: fetch it again."
                if patient.model.dtype == torch.float16
                else "the weights are not those of a trained model: fetch it again, or take an "
                "earlier checkpoint.",
            )
    largest = max(peaks, key=lambda peak: peak.value)
    half = "would fit float16" if largest.value <= _HALF else "would not fit float16"
    return ok(f"at most {largest.value:.3g} (in {largest.module}), which {half}")


@dataclass(frozen=True)
class Stage:
    """A place on the image's way, and what to do when pictures have become alike there."""

    name: str
    mend: str
    values: Tensor  # [N, …]: a row a picture


def image_used(patient: Patient) -> Outcome:
    """Other pictures give other scores."""
    seen = patient.observation
    moved = change(seen.scores - seen.scores.mean(dim=-1, keepdim=True))
    if moved > NO_CHANGE:
        return ok(f"scores of the first token change by {percent(moved)} from picture to picture")
    stage = same_everywhere(way(seen.features))
    if stage is not None:
        return fail(
            f"the model says the same whatever the picture: behind {stage.name} all are alike",
            stage.mend,
        )
    return fail(
        "the model says the same whatever the picture, although the language model is told them "
        "apart",
        "take the language model's weights that belong to this Q-Former: fetch the model again.",
    )


def way(features: ImageFeatures) -> list[Stage]:
    """The image's way to the language model, or to the heads of a retrieval model."""
    other = "they are not those of a trained model: fetch it again, or save it again from training."

    def stage(name: str, weights: str, values: Tensor) -> Stage:
        return Stage(name, f"look at the weights of {weights}; {other}", values)

    stages = [
        stage("the vision encoder", "vision_model", features.image_embeds),
        stage("the Q-Former", "qformer and query_tokens", features.query_output),
    ]
    if features.language_inputs.shape[-1]:
        stages.append(
            stage("the language projection", "language_projection", features.language_inputs)
        )
    return stages


def same_everywhere(stages: list[Stage]) -> Stage | None:
    """The first place where pictures are alike, or None."""
    return next((stage for stage in stages if change(stage.values) <= NO_CHANGE), None)


def change(values: Tensor) -> float:
    """How much rows [N, …] differ from the first, relative to its length."""
    rows = values.float().flatten(1)
    scale = rows.norm(dim=1).max()
    if not scale:
        return 0.0
    return float((rows[1:] - rows[0]).norm(dim=1).max() / scale)


def transformers_agrees(patient: Patient) -> Outcome:
    """blip2cli writes what transformers' own ``generate`` writes."""
    model = patient.model
    question = question_prompt("auto", QUESTION, model.family)
    prompts = [Prompt(0, None, "caption"), Prompt(1, question, "question")]
    options = DecodeOptions(max_new_tokens=NEW_TOKENS)
    ours = [
        texts[0].tokens for texts in model.generate(patient.observation.features, prompts, options)
    ]
    scores = patient.observation.scores
    pixels = patient.their_pixels()
    worst = 0.0
    for prompt, tokens in zip(prompts, ours, strict=True):
        theirs, first = _generate(
            patient, pixels[prompt.image][None], model.codec.encode(prompt.text)
        )
        if prompt.text is None:
            worst = _error(scores[prompt.image], first)
            if worst > NEAR[model.dtype]:
                return fail(
                    f"the first token's scores differ from transformers' by {percent(worst)}",
                    "report this model: one of the two reads it wrongly.",
                )
        if tokens != theirs:
            said, say = model.codec.decode(tokens), model.codec.decode(theirs)
            found = f"blip2cli writes {said!r} where transformers' generate writes {say!r}"
            if model.dtype == torch.float32:
                return fail(found, "report this model: one of the two reads it wrongly.")
            return warn(found, "nothing: in this precision near ties fall either way.")
    return ok(f"same tokens for a caption and an answer; scores within {percent(max(worst, 1e-4))}")


@torch.inference_mode()
def _generate(
    patient: Patient, pixels: Tensor, prompt: tuple[int, ...]
) -> tuple[tuple[int, ...], Tensor]:
    """transformers' greedy tokens for pixel values [1, 3, H, W], and its first raw scores [V]."""
    model, theirs = patient.model, patient.reference
    ids = torch.tensor([prompt], device=model.device)
    index, queries = theirs.config.image_token_index, theirs.config.num_query_tokens
    given: dict[str, Tensor]
    if index is None:
        # Nothing but the language model's generate can be asked: there is no image token.
        generate, length = theirs.language_model.generate, 0
        features = theirs.get_image_features(pixels).pooler_output
        embedded = theirs.get_input_embeddings()(ids)
        embeds = torch.cat((features.to(embedded.dtype), embedded), dim=1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=model.device)
        given = {"inputs_embeds": embeds, "attention_mask": mask}
    else:
        generate = theirs.generate
        ids = torch.cat((ids.new_full((1, queries), index), ids), dim=1)
        length = ids.shape[1] if model.family == "opt" else 0
        given = {"pixel_values": pixels, "input_ids": ids, "attention_mask": torch.ones_like(ids)}
    with silence_libraries():
        output = generate(
            **given,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=0,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    if model.family == "t5":
        length = 1  # its start token
    tokens = tuple(output.sequences[0, length:].tolist())
    return tokens, output.logits[0][0].float()


def _error(ours: Tensor, theirs: Tensor) -> float:
    """Root mean square of the difference, relative to the spread of ``theirs``."""
    return ((ours - theirs).pow(2).mean().sqrt() / theirs.std().clamp_min(1e-12)).item()


def percent(share: float) -> str:
    """``0.0123`` as ``1.2 %``."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
