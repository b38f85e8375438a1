"""Whether two checkpoints have the same vision encoder, so that one of them is enough.

The published pretrained models share theirs, EVA-CLIP's ViT-g, which stayed frozen; so do the
embedded ones. Models that were fine-tuned as a whole, such as those for COCO, have their own.
"""

from __future__ import annotations

import torch

from blip2cli.model.checkpoint.lazy_weights import Weights
from blip2cli.model.checkpoint.weight_files import Checkpoint
from blip2cli.model.loading.stored import stored_weights

VISION = "vision_model."  # names of its weights begin so


def same_vision(one: Checkpoint, other: Checkpoint, dtype: torch.dtype) -> bool:
    """Whether both encode the same pixels by the same numbers in the precision ``dtype``.

    All numbers are read and compared, tensor by tensor, up to the first that differ. Raises
    ModelError for weights that cannot be read.
    """
    if one.pixel_spec != other.pixel_spec:
        return False
    if one.model_config.vision_config != other.model_config.vision_config:
        return False
    first, second = _vision_weights(one), _vision_weights(other)
    return first.keys() == second.keys() and all(
        first[name].shape == second[name].shape
        and torch.equal(first[name].load().to(dtype), second[name].load().to(dtype))
        for name in first
    )


def _vision_weights(checkpoint: Checkpoint) -> Weights:
    weights, _ = stored_weights(checkpoint, keep_open=True)
    return {name: weight for name, weight in weights.items() if name.startswith(VISION)}
