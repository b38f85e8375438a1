"""Compares the result of a conversion with its source, in weights and in logits (``check``)."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor

from blip2cli.convert.checkpoints.huggingface import read_model
from blip2cli.convert.checkpoints.lavis_file import lavis_weights, read_lavis
from blip2cli.model.checkpoint.lazy_weights import Weights
from blip2cli.model.checkpoint.resolve import resolve
from blip2cli.model.retrieval import Pair
from blip2cli.model.wrapper import Blip2
from blip2cli.options import ModelOptions

_TEXT = "two cats on a couch"


def compare_lavis_to_transformers(source: str, destination: str) -> list[str]:
    """Write the result's weights in LAVIS's names again, and compare them with the source's."""
    made = resolve(destination)
    positions = (made.config.get("qformer_config") or {}).get("max_position_embeddings", 512)
    file = read_lavis(Path(source).expanduser())
    weights = read_model(made)
    if made.model_config.vision_config.pre_layernorm:  # whose vision encoder is only read
        first = "vision_model.post_layernorm."
        weights = {
            name: weight
            for name, weight in weights.items()
            if name.startswith(first) or not name.startswith("vision_model.")
        }
    back = lavis_weights(weights, made.family, positions, made.model_type).weights
    held = {name: weight for name, weight in file.weights.items() if name in back}
    return [compare(held, back)]


def compare_transformers_to_lavis(source: str, destination: str) -> list[str]:
    """Read the result in transformers' names again, and compare it with the source."""
    weights, _ = read_lavis(Path(destination)).renamed()
    return [compare(weights, read_model(resolve(source)))]


def compare_transformers(
    source: str, destination: str, adapters: tuple[str, ...] = ()
) -> list[str]:
    """Compare the weights, and the logits that both give for one picture, in float32.

    ``adapters`` are merged into the source."""
    made = read_model(resolve(destination))
    lines = [compare(made, read_model(resolve(source, adapters=adapters)))]
    before, after = logits(source, adapters), logits(destination)
    same = "the same" if before.argmax() == after.argmax() else "ANOTHER"
    lines.append(
        f"Check: the logits for a picture differ by {_distance(before, after):.3g} at most, of up "
        f"to {before.abs().max().item():.3g}; {same} one is the best."
    )
    return lines


def compare(weights: Weights, others: Weights) -> str:
    """How ``weights`` differ from those of the same names among ``others``, as a sentence.

    Weights are equal bit for bit, precision included.
    """
    equal, largest = 0, 0.0
    for name, weight in weights.items():
        one, two = weight.load(), others[name].load()
        if one.dtype == two.dtype and torch.equal(one, two):
            equal += 1
        else:
            largest = max(largest, _distance(one, two))
    if equal == len(weights):
        return f"Check: all {equal} weights are the same, bit for bit."
    return (
        f"Check: {equal} of {len(weights)} weights are the same, bit for bit; the largest "
        f"difference of two numbers is {largest:.3g}."
    )


@torch.inference_mode()
def logits(model: str, adapters: tuple[str, ...] = ()) -> Tensor:
    """The logits of a model for a fixed picture, computed in float32.

    Those of the first token, [V]; of a retrieval model, those of image-text matching, [2].
    """
    loaded = Blip2.load(ModelOptions(model=model, dtype="float32", adapter=adapters))
    features = loaded.features(picture(loaded.spec.height, loaded.spec.width))
    if loaded.retrieval is not None:
        found = loaded.retrieval.matching_logits(features, [Pair(0, _TEXT)])
        return found[0].float().cpu()
    return loaded.scores(features)[0, 0].float().cpu()


def picture(height: int, width: int) -> Tensor:
    """A picture of colour gradients and a bright square; uint8 [1, 3, H, W]."""
    down = torch.linspace(0, 255, height)[:, None].expand(height, width)
    across = torch.linspace(0, 255, width)[None].expand(height, width)
    made = torch.stack((down, across, 255 - across)).to(torch.uint8)
    made[:, height // 4 : height // 2, width // 4 : width // 2] = 240
    return made[None]


def _distance(one: Tensor, two: Tensor) -> float:
    return (one.double() - two.double()).abs().max().item() if one.numel() else 0.0
