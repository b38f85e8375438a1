"""Checks of configuration and processor files; all but one before any weight is read."""

from __future__ import annotations

from typing import Any

import torch

from blip2cli.doctor.model_under_test import ModelUnderTest
from blip2cli.doctor.report import Outcome, fail, ok, warn
from blip2cli.images.preprocess import CLIP_MEAN, CLIP_STD, PixelSpec
from blip2cli.model.nets.blip2 import RetrievalModel

# EVA-CLIP's encoder and BERT's layers, as LAVIS trained them (eva_vit.py: norm_layer with
# eps=1e-6; BertConfig's default). With transformers' usual 1e-5 texts differ (LAVIS issue 418).
EPSILON = {"vision_config": 1e-6, "qformer_config": 1e-12}


def files(subject: ModelUnderTest) -> Outcome:
    """Everything but the weights can be read; raises ModelError for what cannot."""
    config = subject.config
    tokens = len(subject.codec.tokenizer)
    _ = subject.tokenizer, subject.generation_config, subject.tokenizer_config
    _ = subject.spec, subject.processor_queries
    layers = config.vision_config.num_hidden_layers
    return ok(f"{layers} vision layers, {config.num_query_tokens} queries, {tokens} tokens")


def image_size(subject: ModelUnderTest) -> Outcome:
    """The processor resizes pictures to what the vision encoder takes."""
    expected, made = subject.image_size, (subject.spec.height, subject.spec.width)
    if expected == made:
        return ok(f"{made[1]}×{made[0]} pixels")
    return fail(
        f"the processor makes pictures of {made[1]}×{made[0]} pixels, the vision encoder takes "
        f"{expected[1]}×{expected[0]}: texts are wrong, without an error",
        f"set size in {_processor_file(subject)} to height {expected[0]} and width {expected[1]}, "
        "or take both files from one model",
    )


def pixel_values(subject: ModelUnderTest) -> Outcome:
    """Pictures are rescaled and normalised as in the training of the vision encoder."""
    spec, usual = subject.spec, PixelSpec(1, 1)
    wrong = [
        f"{name} {_numbers(got)} instead of {_numbers(expected)}"
        for name, got, expected in (
            ("image_mean", spec.mean, CLIP_MEAN),
            ("image_std", spec.std, CLIP_STD),
            ("rescale_factor", (spec.rescale_factor,), (usual.rescale_factor,)),
        )
        if any(abs(one - other) > 1e-6 for one, other in zip(got, expected, strict=True))
    ]
    if wrong:
        return fail(
            f"{'; '.join(wrong)}: the colours are not those the model was trained on",
            f"set CLIP's values in {_processor_file(subject)}: image_mean {list(CLIP_MEAN)}, "
            f"image_std {list(CLIP_STD)}, rescale_factor 1/255",
        )
    if spec.resample != usual.resample:
        return warn(
            f"resample is Pillow's filter {spec.resample}, BLIP-2 was trained with bicubic (3)",
            f"set resample to 3 in {_processor_file(subject)}, unless it was trained otherwise",
        )
    return ok("CLIP's mean and standard deviation, bicubic")


def norm_epsilon(section: str, subject: ModelUnderTest) -> Outcome:
    """The layer norms of the vision encoder or the Q-Former use the epsilon of their training."""
    epsilon, expected = getattr(subject.config, section).layer_norm_eps, EPSILON[section]
    if section == "vision_config" and subject.checkpoint.model_config.vision_config.pre_layernorm:
        expected = 1e-5  # CLIP's
    if epsilon == expected:
        return ok(f"layer_norm_eps {epsilon:g} in {section}")
    return fail(
        f"layer_norm_eps is {epsilon:g} in {section}, BLIP-2 was trained with {expected:g}",
        f"set layer_norm_eps to {expected:g} under {section} in config.json",
    )


def query_tokens(subject: ModelUnderTest) -> Outcome:
    """The processor puts as many image tokens before a text as the Q-Former has queries."""
    queries, prepended = subject.config.num_query_tokens, subject.processor_queries
    remedy = f"set num_query_tokens to {queries} in processor_config.json"
    if prepended == queries:
        return ok(f"{queries} of them")
    if prepended is not None:
        problem = f"puts {prepended} image tokens before a text, for {queries} queries"
    elif subject.config.image_token_index is None:
        return warn(
            "the processor has no num_query_tokens, as usual before transformers 4.47; blip2cli "
            "does without, newer transformers do not",
            remedy,
        )
    else:
        problem = (
            "has no num_query_tokens: transformers puts no image tokens before a text, and "
            "ignores the image without an error"
        )
    return fail(f"the processor {problem}", remedy)


def t5_settings(subject: ModelUnderTest) -> Outcome:
    """The settings of T5 in which Flan-T5 differs."""
    text = subject.config.text_config
    if text.decoder_start_token_id is None:
        return warn(
            "decoder_start_token_id is not set; texts begin from the padding token",
            "set decoder_start_token_id to 0 in text_config of config.json",
        )
    # T5 ties its embeddings and scales the output; Flan-T5 does neither.
    if text.scale_decoder_outputs and not has_tied_embeddings(subject):
        return fail(
            "scale_decoder_outputs is on, as with one matrix that reads and writes, but there are "
            "two, as in Flan-T5: its scores come out too small",
            "set tie_word_embeddings to false in text_config of config.json, as Flan-T5 has it",
        )
    # LAVIS sets dense_act_fn (blip2_t5.py), which T5's "gated-gelu" would make "gelu_new".
    published = text.vocab_size == 32128 and text.d_model in (2048, 4096)
    if published and text.dense_act_fn != "gelu":
        return warn(
            f"dense_act_fn is {text.dense_act_fn}; BLIP-2 was trained with Flan-T5 under gelu",
            "set dense_act_fn to gelu in text_config of config.json",
        )
    return ok(f"{text.dense_act_fn}, decoder starts from {text.decoder_start_token_id}")


def has_tied_embeddings(subject: ModelUnderTest) -> bool:
    """Whether input and output embedding hold the same numbers."""
    model = subject.model.model
    assert not isinstance(model, RetrievalModel)
    inputs, outputs = model.input_embeddings.weight, model.language_model.lm_head.weight
    return inputs is outputs or torch.equal(inputs, outputs)


def _processor_file(subject: ModelUnderTest) -> str:
    file = subject.path / "preprocessor_config.json"
    return file.name if file.is_file() else "processor_config.json"


def _numbers(values: Any) -> str:
    return ", ".join(f"{value:.4g}" for value in values)
