"""A model that counts as a large one, without its size."""

from __future__ import annotations

import copy
from dataclasses import replace
from typing import TypeVar

from blip2cli.model.nets.blip2 import Blip2Net
from blip2cli.model.placement.batch_size import model_memory
from blip2cli.model.placement.thresholds import BATCH_THREADS_BELOW, CHUNK_THREADS_BELOW

Net = TypeVar("Net", bound=Blip2Net)


def as_if_large(model: Net) -> Net:
    """The same network under the configuration of one with many more layers."""
    large = copy.copy(model)
    while model_memory(large).weights < BATCH_THREADS_BELOW:
        vision = large.config.vision_config
        vision = replace(vision, num_hidden_layers=2 * vision.num_hidden_layers)
        large.config = replace(large.config, vision_config=vision)
    assert model_memory(large).weights < CHUNK_THREADS_BELOW
    return large
