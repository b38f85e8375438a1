"""The table of checks, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from blip2cli.doctor import (
    adapters,
    behaviour,
    captions,
    precision,
    retrieval,
    settings,
    tokens,
    weights,
)
from blip2cli.doctor.model_under_test import ModelUnderTest
from blip2cli.doctor.report import Outcome
from blip2cli.model.families import FAMILIES, RETRIEVAL, T5, WRITERS, Family


@dataclass(frozen=True)
class Check:
    """A check of a model, and the families it applies to."""

    name: str  # stable; scripts may rely on it
    run: Callable[[ModelUnderTest], Outcome]
    needs: tuple[str, ...] = ("files",)  # checks without which this one cannot run
    families: tuple[Family, ...] = WRITERS
    adapted: bool = False  # only where adapters are merged into the model


CHECKS = (
    Check("files", settings.files, needs=(), families=FAMILIES),
    Check("image-size", settings.image_size, families=FAMILIES),
    Check("pixel-values", settings.pixel_values, families=FAMILIES),
    Check("vision-epsilon", partial(settings.norm_epsilon, "vision_config"), families=FAMILIES),
    Check("qformer-epsilon", partial(settings.norm_epsilon, "qformer_config"), families=FAMILIES),
    Check("query-tokens", settings.query_tokens),
    Check("query-tokens", retrieval.query_tokens, families=(RETRIEVAL,)),
    Check("text-input", retrieval.text_input, families=(RETRIEVAL,)),
    Check("projections", retrieval.projections, families=(RETRIEVAL,)),
    Check("embedding-rows", tokens.embedding_rows),
    Check("embedding-rows", retrieval.word_rows, families=(RETRIEVAL,)),
    Check("image-token", tokens.image_token, needs=("files", "embedding-rows")),
    Check("image-token", retrieval.image_token, families=(RETRIEVAL,)),
    Check("padding-side", tokens.padding_side),
    Check("padding-side", retrieval.padding_side, families=(RETRIEVAL,)),
    Check("prompt-tokens", tokens.prompt_tokens),
    Check("prompt-tokens", retrieval.prompt_tokens, families=(RETRIEVAL,)),
    Check("end-token", tokens.end_token),
    Check("load", weights.load, needs=("files", "projections", "text-input"), families=FAMILIES),
    Check("unused-weights", weights.unused_weights, needs=("load",), families=FAMILIES),
    Check("finite-weights", weights.finite_weights, needs=("load",), families=FAMILIES),
    Check("tied-embeddings", weights.tied_embeddings, needs=("load",)),
    Check("t5-settings", settings.t5_settings, needs=("load",), families=(T5,)),
    Check("activations", behaviour.activations, needs=("load", "finite-weights")),
    Check(
        "activations",
        behaviour.activations,
        needs=("load", "finite-weights", "embedding-rows", "text-input"),
        families=(RETRIEVAL,),
    ),
    Check("image-used", behaviour.image_used, needs=("activations",)),
    Check("image-used", retrieval.image_used, needs=("activations",), families=(RETRIEVAL,)),
    Check("text-used", retrieval.text_used, needs=("activations",), families=(RETRIEVAL,)),
    Check(
        "transformers",
        behaviour.transformers_agrees,
        needs=("activations", "embedding-rows", "image-token"),
    ),
    Check(
        "transformers", retrieval.transformers_agrees, needs=("activations",), families=(RETRIEVAL,)
    ),
    Check(
        "adapter",
        adapters.changes_text,
        needs=("activations",),
        families=FAMILIES,
        adapted=True,
    ),
    Check("precision", precision.precision, needs=("activations",), families=FAMILIES),
    Check("known-caption", captions.known_caption, needs=("activations",)),
)

# The checks of the embedded model when only the installation is examined.
QUICK = ("files", "load", "known-caption")
