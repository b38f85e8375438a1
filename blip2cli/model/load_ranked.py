"""Loads a model with a retrieval model beside it that ranks its texts."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from blip2cli.errors import OptionError, option
from blip2cli.model.checkpoint.ranker import RankerSpec
from blip2cli.model.checkpoint.resolve import resolve_model
from blip2cli.model.checkpoint.weight_files import Checkpoint
from blip2cli.model.loading.shared_vision import same_vision
from blip2cli.model.ranker import Ranker
from blip2cli.model.wrapper import Blip2
from blip2cli.options import Dtype, ModelOptions


def load_ranked(options: ModelOptions, checkpoint: Checkpoint | None, ranker: RankerSpec) -> Blip2:
    """As ``Blip2.load``; its ``ranker`` is on the same device and in the same precision.

    The vision encoder is in memory once where both have the same. Raises OptionError, too, where
    the two read images of different sizes.
    """
    checkpoint = checkpoint or resolve_model(options)
    other = ranker.local(options).found()
    assert other.checkpoint is not None
    _check_pixels(options.model, checkpoint, other.name, other.checkpoint)
    model = Blip2.load(options, checkpoint)
    shared = same_vision(checkpoint, other.checkpoint, model.dtype)
    beside = replace(
        options,
        model=other.name,
        revision=None,
        adapter=(),
        device=str(model.device),
        dtype=cast(Dtype, str(model.dtype).removeprefix("torch.")),
        compile=options.compile and not shared,
    )
    vision = model.model.vision_model if shared else None
    loaded = Blip2.load(beside, other.checkpoint, vision)
    model.ranker = Ranker(loaded, shared)
    has = "the same vision encoder, run once" if shared else "another vision encoder"
    model.reason += f"; ranked by {other.name} ({has})"
    model.model.remarks += tuple(f"{other.name}: {one}" for one in loaded.model.remarks)
    return model


def _check_pixels(name: str, checkpoint: Checkpoint, other: str, its: Checkpoint) -> None:
    """Raise OptionError where images would have to be resized twice."""
    one, two = checkpoint.pixel_spec, its.pixel_spec
    if (one.height, one.width, one.resample) != (two.height, two.width, two.resample):
        raise OptionError(
            "rank_with",
            f"{name} reads images of {one.height}x{one.width} pixels and {other} of "
            f"{two.height}x{two.width}, or resizes them otherwise",
            f"take two models that read the same, or rank in a run of its own, by "
            f"{option('choices_column')}",
        )
