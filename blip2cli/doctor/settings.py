"""Checks of what the files say; all but one before any weight is read."""

from __future__ import annotations

from typing import Any

import torch

from blip2cli.doctor.model_under_test import Patient
from blip2cli.doctor.report import Outcome, fail, ok, warn
from blip2cli.images.preprocess import CLIP_MEAN, CLIP_STD, PixelSpec
from blip2cli.model.nets.blip2 import RetrievalModel

# EVA-CLIP's encoder and BERT's layers, as LAVIS trained them (eva_vit.py: norm_layer with
# eps=1e-6; BertConfig's default). With transformers' usual 1e-5 texts differ (LAVIS issue 418).
VISION_EPSILON = 1e-6
QFORMER_EPSILON = 1e-12


def files(patient: Patient) -> Outcome:
    """Everything but the weights can be read; what cannot, raises."""
    config = patient.config
    tokens = len(patient.codec.tokenizer)
    _ = patient.tokenizer, patient.generation, patient.tokenizer_settings
    _ = patient.spec, patient.processor_queries
    layers = config.vision_config.num_hidden_layers
    return ok(f"{layers} vision layers, {config.num_query_tokens} queries, {tokens} tokens")


def image_size(patient: Patient) -> Outcome:
    """The processor makes pictures as large as the vision encoder takes them."""
    wanted, made = patient.image_size, (patient.spec.height, patient.spec.width)
    if wanted == made:
        return ok(f"{made[1]}×{made[0]} pixels")
    return fail(
        f"the processor makes pictures of {made[1]}×{made[0]} pixels, the vision encoder takes "
        f"{wanted[1]}×{wanted[0]}: texts are wrong, without an error",
        f"set size in {_processor_file(patient)} to height {wanted[0]} and width {wanted[1]}, or "
        "take both files from one model.",
    )


def pixel_values(patient: Patient) -> Outcome:
    """Pictures are rescaled and normalised as the vision encoder was trained on them."""
    spec, usual = patient.spec, PixelSpec(1, 1)
    wrong = [
        f"{name} {_numbers(got)} instead of {_numbers(wanted)}"
        for name, got, wanted in (
            ("image_mean", spec.mean, CLIP_MEAN),
            ("image_std", spec.std, CLIP_STD),
            ("rescale_factor", (spec.rescale_factor,), (usual.rescale_factor,)),
        )
        if any(abs(one - other) > 1e-6 for one, other in zip(got, wanted, strict=True))
    ]
    if wrong:
        return fail(
            f"{'; '.join(wrong)}: the colours are not those the model was trained on",
            f"set CLIP's values in {_processor_file(patient)}: image_mean {list(CLIP_MEAN)}, "
            f"image_std {list(CLIP_STD)}, rescale_factor 1/255.",
        )
    if spec.resample != usual.resample:
        return warn(
            f"resample is Pillow's filter {spec.resample}, BLIP-2 was trained with bicubic (3)",
            f"set resample to 3 in {_processor_file(patient)}, unless it was trained otherwise.",
        )
    return ok("CLIP's mean and standard deviation, bicubic")


def vision_epsilon(patient: Patient) -> Outcome:
    """The vision encoder's layer norms use the epsilon they were trained with."""
    got = patient.config.vision_config.layer_norm_eps
    return _epsilon("vision_config", got, VISION_EPSILON)


def qformer_epsilon(patient: Patient) -> Outcome:
    """The Q-Former's layer norms use the epsilon they were trained with."""
    got = patient.config.qformer_config.layer_norm_eps
    return _epsilon("qformer_config", got, QFORMER_EPSILON)


def query_tokens(patient: Patient) -> Outcome:
    """The processor puts as many image tokens before a text as the Q-Former has queries."""
    queries, made = patient.config.num_query_tokens, patient.processor_queries
    mend = f"set num_query_tokens to {queries} in processor_config.json."
    if made == queries:
        return ok(f"{queries} of them")
    if made is not None:
        return fail(
            f"the processor puts {made} image tokens before a text, for {queries} queries",
            mend,
        )
    if patient.config.image_token_index is None:
        return warn(
            "the processor has no num_query_tokens, as usual before transformers 4.47; blip2cli "
            "does without, newer transformers do not",
            mend,
        )
    return fail(
        "the processor has no num_query_tokens: transformers puts no image tokens before a text, "
        "and ignores the image without an error",
        mend,
    )


def t5_settings(patient: Patient) -> Outcome:
    """What sets Flan-T5 apart from T5 in its configuration."""
    text = patient.config.text_config
    if text.decoder_start_token_id is None:
        return warn(
            "decoder_start_token_id is not set; texts begin from the padding token",
            "set decoder_start_token_id to 0 in text_config of config.json.",
        )
    # T5 writes with the matrix it reads with, and scales; Flan-T5 has two matrices and does not.
    if text.scale_decoder_outputs and not one_matrix(patient):
        return fail(
            "scale_decoder_outputs is on, as with one matrix that reads and writes, but there are "
            "two, as in Flan-T5: its scores come out too small",
            "set tie_word_embeddings to false in text_config of config.json, as Flan-T5 has it.",
        )
    # LAVIS sets dense_act_fn (blip2_t5.py), which T5's "gated-gelu" would make "gelu_new".
    published = text.vocab_size == 32128 and text.d_model in (2048, 4096)
    if published and text.dense_act_fn != "gelu":
        return warn(
            f"dense_act_fn is {text.dense_act_fn}; BLIP-2 was trained with Flan-T5 under gelu",
            "set dense_act_fn to gelu in text_config of config.json.",
        )
    return ok(f"{text.dense_act_fn}, decoder starts from {text.decoder_start_token_id}")


def one_matrix(patient: Patient) -> bool:
    """Whether the language model reads and writes with the same embedding."""
    model = patient.model.model
    assert not isinstance(model, RetrievalModel)
    reads, writes = model.input_embeddings.weight, model.language_model.lm_head.weight
    return reads is writes or torch.equal(reads, writes)


def _epsilon(part: str, got: float, wanted: float) -> Outcome:
    if got == wanted:
        return ok(f"layer_norm_eps {got:g} in {part}")
    return fail(
        f"layer_norm_eps is {got:g} in {part}, BLIP-2 was trained with {wanted:g}",
        f"set layer_norm_eps to {wanted:g} under {part} in config.json.",
    )


def _processor_file(patient: Patient) -> str:
    file = patient.path / "preprocessor_config.json"
    return file.name if file.is_file() else "processor_config.json"


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
