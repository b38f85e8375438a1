"""Checks of a forward pass: overflow, effect of the image, parity with transformers."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from blip2cli.doctor.model_under_test import ModelUnderTest
from blip2cli.doctor.report import Outcome, fail, ok, skipped, warn
from blip2cli.errors import option
from blip2cli.model.instructions import DESCRIBE
from blip2cli.model.tokenizer.fill_prompt import Prompt, question_prompt
from blip2cli.model.vision.features import ImageFeatures
from blip2cli.options import DecodeOptions
from blip2cli.system.library_logging import silence_libraries

# Layer norms square their input in float32: beyond this the square overflows, and T5's norm then
# gives zeros, without an error and without a NaN.
_SQUARE_OVERFLOW = math.sqrt(torch.finfo(torch.float32).max)
_FLOAT16_MAX = torch.finfo(torch.float16).max
# Relative change up to which a difference counts as rounding, not as an effect of the picture.
NO_EFFECT = 1e-5
UNTRAINED = "they are not those of a trained model: fetch it again, or save it again from training"
NEW_TOKENS = 8
QUESTION = "what is in the picture?"
# Largest error of the first token's logits against transformers', relative to their spread. Only
# the order of additions differs: the attention of the language model and the row counts.
LOGIT_TOLERANCE = {torch.float32: 1e-3, torch.bfloat16: 0.1, torch.float16: 0.02}


def activations(subject: ModelUnderTest) -> Outcome:
    """No activation overflows."""
    peaks = subject.forward_pass.peaks
    for peak in peaks:
        if not math.isfinite(peak.value) or peak.value > _SQUARE_OVERFLOW:
            dtype = str(subject.model.dtype).removeprefix("torch.")
            return fail(
                f"{peak.module} gives {peak.value:.3g} in {dtype}, which overflows there or in "
                "the next layer norm: texts turn to nonsense",
                f"run it with {option('dtype')} bfloat16 or float32; if that does not help, the "
                "weights are not those of a trained model: fetch it again"
                if subject.model.dtype == torch.float16
                else "the weights are not those of a trained model: fetch it again, or take an "
                "earlier checkpoint",
            )
    largest = max(peaks, key=lambda peak: peak.value)
    half = "would fit float16" if largest.value <= _FLOAT16_MAX else "would not fit float16"
    return ok(f"at most {largest.value:.3g} (in {largest.module}), which {half}")


def image_used(subject: ModelUnderTest) -> Outcome:
    """The picture changes the first token's logits."""
    scores, features = subject.forward_pass.scores, subject.forward_pass.features
    effect = relative_change(scores - scores.mean(dim=-1, keepdim=True))
    if effect > NO_EFFECT:
        return ok(f"scores of the first token change by {percent(effect)} from picture to picture")
    problem = "the model says the same whatever the picture"
    return constant_stage(features, problem) or fail(
        f"{problem}, although the language model's inputs differ",
        "take the language model's weights that belong to this Q-Former: fetch the model again",
    )


def constant_stage(features: ImageFeatures, problem: str) -> Outcome | None:
    """The failure, beginning with ``problem``, of the first stage whose output is the same for all
    pictures; None when there is none before the language model or the heads of a retrieval model.
    """
    for stage, weights, values in (
        ("the vision encoder", "vision_model", features.image_embeds),
        ("the Q-Former", "qformer and query_tokens", features.query_output),
        ("the language projection", "language_projection", features.language_inputs),
    ):
        # A retrieval model has no language projection, and an empty output of it; a Q-Former that
        # reads prompts has none without.
        if values.numel() and relative_change(values) <= NO_EFFECT:
            return fail(
                f"{problem}: behind {stage} all are alike",
                f"look at the weights of {weights}; {UNTRAINED}",
            )
    return None


def relative_change(values: Tensor) -> float:
    """The largest distance of rows [N, …] from the first, relative to the longest row (L2)."""
    rows = values.float().flatten(1)
    scale = rows.norm(dim=1).max()
    if not scale:
        return 0.0
    return float((rows[1:] - rows[0]).norm(dim=1).max() / scale)


def transformers_agrees(subject: ModelUnderTest) -> Outcome:
    """Greedy tokens equal those of transformers' own ``generate``."""
    if subject.beyond_transformers is not None:
        return skipped(f"transformers has no place for {subject.beyond_transformers}")
    model = subject.model
    question = question_prompt("auto", QUESTION, model.family)
    prompts = [Prompt(0, None, "caption"), Prompt(1, question, "question")]
    options = DecodeOptions(max_new_tokens=NEW_TOKENS)
    ours = [
        texts[0].tokens for texts in model.generate(subject.forward_pass.features, prompts, options)
    ]
    scores = subject.forward_pass.scores
    pixels = subject.reference_pixels()
    worst = 0.0
    for prompt, tokens in zip(prompts, ours, strict=True):
        theirs, first = _generate(subject, pixels[prompt.image][None], prompt.text)
        if prompt.text is None:
            worst = relative_error(scores[prompt.image], first)
            if worst > LOGIT_TOLERANCE[model.dtype]:
                return fail(
                    f"the first token's scores differ from transformers' by {percent(worst)}",
                    "report this model: one of the two reads it wrongly",
                )
        if tokens != theirs:
            text, expected = model.codec.decode(tokens), model.codec.decode(theirs)
            found = f"blip2cli writes {text!r} where transformers' generate writes {expected!r}"
            if model.dtype == torch.float32:
                return fail(found, "report this model: one of the two reads it wrongly")
            return warn(found, "nothing: in this precision near ties fall either way")
    return ok(f"same tokens for a caption and an answer; scores within {percent(max(worst, 1e-4))}")


@torch.inference_mode()
def _generate(
    subject: ModelUnderTest, pixels: Tensor, text: str | None
) -> tuple[tuple[int, ...], Tensor]:
    """transformers' greedy tokens for pixel values [1, 3, H, W], and its first logits [V]."""
    model, theirs = subject.model, subject.reference
    read: dict[str, Tensor] = {}  # what the Q-Former reads beside the image
    if model.instructions is not None:
        text = DESCRIBE if text is None else text
        own = model.instructions.codec.encode(text)
        read["qformer_input_ids"] = torch.tensor([own], device=model.device)
    ids = torch.tensor([model.codec.encode(text)], device=model.device)
    index, queries = theirs.config.image_token_index, theirs.config.num_query_tokens
    inputs: dict[str, Tensor]
    if index is None:
        # Without an image token only the language model's own generate takes the image.
        generate, length = theirs.language_model.generate, 0
        features = theirs.get_image_features(pixels, **read).pooler_output
        embedded = theirs.get_input_embeddings()(ids)
        embeds = torch.cat((features.to(embedded.dtype), embedded), dim=1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.long, device=model.device)
        inputs = {"inputs_embeds": embeds, "attention_mask": mask}
    else:
        generate = theirs.generate
        ids = torch.cat((ids.new_full((1, queries), index), ids), dim=1)
        length = 0 if model.family.encoder_decoder else ids.shape[1]
        mask = torch.ones_like(ids)
        inputs = {"pixel_values": pixels, "input_ids": ids, "attention_mask": mask, **read}
    with silence_libraries():
        output = generate(
            **inputs,
            max_new_tokens=NEW_TOKENS,
            min_new_tokens=0,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            output_logits=True,
            return_dict_in_generate=True,
        )
    if model.family.encoder_decoder:
        length = 1  # its start token
    tokens = tuple(output.sequences[0, length:].tolist())
    return tokens, output.logits[0][0].float()


def relative_error(ours: Tensor, theirs: Tensor) -> float:
    """Root mean square of the difference, relative to the spread of ``theirs``."""
    return ((ours - theirs).pow(2).mean().sqrt() / theirs.std().clamp_min(1e-12)).item()


def percent(share: float) -> str:
    """``0.0123`` as ``1.2 %``."""
    return f"{100 * share:.0f} %" if share >= 0.1 else f"{100 * share:.2g} %"
