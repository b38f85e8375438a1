"""The table of checks, in the order in which they are made."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from blip2cli.doctor import behaviour, captions, precision, settings, tokens, weights
from blip2cli.doctor.patient import Patient
from blip2cli.doctor.report import Outcome
from blip2cli.model.checkpoint import Family


@dataclass(frozen=True)
class Check:
    """One thing that can be wrong with a model."""

    name: str  # stable; scripts may rely on it
    look: Callable[[Patient], Outcome]
    needs: tuple[str, ...] = ("files",)  # checks without which this one cannot be made
    families: tuple[Family, ...] = ("opt", "t5")


CHECKS = (
    Check("files", settings.files, needs=()),
    Check("image-size", settings.image_size),
    Check("pixel-values", settings.pixel_values),
    Check("vision-epsilon", settings.vision_epsilon),
    Check("qformer-epsilon", settings.qformer_epsilon),
    Check("query-tokens", settings.query_tokens),
    Check("t5-settings", settings.t5_settings, families=("t5",)),
    Check("embedding-rows", tokens.embedding_rows),
    Check("image-token", tokens.image_token, needs=("files", "embedding-rows")),
    Check("padding-side", tokens.padding_side),
    Check("prompt-tokens", tokens.prompt_tokens),
    Check("end-token", tokens.end_token),
    Check("load", weights.load),
    Check("unused-weights", weights.unused_weights, needs=("load",)),
    Check("finite-weights", weights.finite_weights, needs=("load",)),
    Check("tied-embeddings", weights.tied_embeddings, needs=("load",)),
    Check("activations", behaviour.activations, needs=("finite-weights",)),
    Check("image-used", behaviour.image_used, needs=("activations",)),
    Check(
        "transformers",
        behaviour.transformers_agrees,
        needs=("activations", "embedding-rows", "image-token"),
    ),
    Check("precision", precision.precision, needs=("activations",)),
    Check("known-caption", captions.known_caption, needs=("activations",)),
)

# What a first look at an installation takes.
QUICK = ("files", "load", "known-caption")
