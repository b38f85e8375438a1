"""One forward pass over some pictures, with the peak activation of every module."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from blip2cli.model.retrieval import Pair, Retrieval
from blip2cli.model.vision.features import ImageFeatures
from blip2cli.model.wrapper import Blip2

# Texts that retrieval models score pictures against: of different content and length.
TEXTS = ("two cats and a pizza", "an elephant on a green background", "a red car")


@dataclass(frozen=True)
class Peak:
    """The largest absolute value in the output of one call of a module."""

    module: str  # its dotted name
    value: float  # inf or nan when there was one


@dataclass(frozen=True)
class ForwardPass:
    """The results for N pictures."""

    features: ImageFeatures
    # Float32. With a language model [N, V]: the logits of a caption's first token. Of a
    # retrieval model [N, T, 3]: for each of TEXTS the contrastive score and the matching head's
    # no and yes.
    scores: Tensor
    peaks: tuple[Peak, ...]  # in order of execution


@torch.inference_mode()
def run_forward(model: Blip2, pixels: Tensor) -> ForwardPass:
    """Run uint8 pixels [N, 3, H, W] up to the first token's logits, or the retrieval scores."""
    with record_peaks(model.model) as peaks:
        features = model.features(pixels)
        if model.retrieval is not None:
            scores = retrieval_scores(model.retrieval, features)
        else:
            scores = model.scores(features)[:, 0]
    found = tuple(Peak(name, value.item()) for name, value in peaks)
    return ForwardPass(features, scores.float(), found)


def retrieval_scores(retrieval: Retrieval, features: ImageFeatures) -> Tensor:
    """The scores [N, T, 3] of every picture with every one of ``TEXTS``."""
    pairs = [Pair(image, text) for image in range(len(features)) for text in TEXTS]
    contrast = retrieval.contrastive_scores(features, pairs)[:, None]
    matching = retrieval.matching_logits(features, pairs)
    return torch.cat((contrast, matching), dim=1).view(len(features), len(TEXTS), 3)


@contextmanager
def record_peaks(model: nn.Module) -> Iterator[Sequence[tuple[str, Tensor]]]:
    """While open, collect every module's name and the largest absolute value of its output."""
    peaks: list[tuple[str, Tensor]] = []

    def recorder(name: str) -> Any:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            # Left on the device: reading each number at once would synchronise every time.
            peaks.extend((name, tensor.abs().amax().float()) for tensor in _tensors(output))

        return hook

    handles = [
        module.register_forward_hook(recorder(name))
        for name, module in model.named_modules()
        if name
    ]
    try:
        yield peaks
    finally:
        for handle in handles:
            handle.remove()


def _tensors(output: Any) -> Iterator[Tensor]:
    """The floating-point tensors of a module's output: one, a tuple, or a mapping."""
    if isinstance(output, Tensor):
        if output.is_floating_point() and output.numel():
            yield output
    elif isinstance(output, Mapping | tuple | list):
        for item in output.values() if isinstance(output, Mapping) else output:
            yield from _tensors(item)
