"""The last stage of training: the language model learns to read, and nothing else changes.

What the vision side gives for a picture is then fixed, so it is computed once, and a step costs a
fifth. Questions about left and right come more often: to find the object that a question names
among the query outputs and read its place there is what the language model learns last.
"""

from __future__ import annotations

import random
import time
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from blip2cli.tiny.scenes import Scene
from training.data import Packer, mirrored, scene_chunks
from training.easyvqa import load_split
from training.evaluate import read, see
from training.trainer import Trainer

SEED = 5_000
_Example = tuple[NDArray[np.uint8], Scene]


def learn_to_read(trainer: Trainer, packer: Packer, minutes: float, scenes: int = 12_000) -> None:
    """Train the language model of ``trainer`` for so many minutes, on ``scenes`` pictures."""
    model = trainer.computing_model()
    seen = _draw(scenes)
    shapes = load_split("train")
    scene_features = _features(trainer, [pixels for pixels, _ in seen])
    shape_features = _features(trainer, [shape.pixels for shape in shapes])
    optimizers, rates = trainer.reading_optimizers()
    rng = random.Random(SEED)
    began = time.monotonic()
    steps, mean = 0, 0.0
    while (share := (time.monotonic() - began) / 60 / max(minutes, 1e-9)) < 1:
        for optimizer, rate in zip(optimizers, rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * min(1.0, (steps + 1) / 100) * (1 - share)
        chosen = rng.sample(range(len(seen)), trainer.recipe.scenes)
        others = rng.sample(range(len(shapes)), trainer.recipe.shapes)
        batch = packer.batch(
            [seen[i] for i in chosen],
            [(shapes[i].pixels, shapes[i]) for i in others],
            rng,
            sides=True,
        )
        model = trainer.computing_model()
        query_output = torch.cat([scene_features[chosen], shape_features[others]])
        logits, targets = read(model, query_output.to(model.dtype), batch)
        loss = cross_entropy(logits.float(), targets)
        loss.backward()
        trainer.apply(optimizers)
        mean = loss.item() if not steps else 0.98 * mean + 0.02 * loss.item()
        steps += 1
        if steps % 200 == 0:
            print(f"{share * minutes:6.1f} min of reading, step {steps}: {mean:.4f}", flush=True)


def _draw(scenes: int) -> list[_Example]:
    """Scenes, half of them with their mirror image."""
    seen: list[_Example] = []
    for chunk in scene_chunks(SEED):
        seen += chunk
        seen += [mirrored(*example) for example in chunk[::2]]
        if len(seen) >= scenes:
            return seen
    raise AssertionError("scenes come without end")


@torch.inference_mode()
def _features(trainer: Trainer, pictures: Sequence[NDArray[np.uint8]]) -> Tensor:
    """The query outputs of uint8 pictures [S, S, 3]: float32 [N, Q, W]."""
    found = []
    for start in range(0, len(pictures), 64):
        pixels = torch.from_numpy(np.stack(pictures[start : start + 64])).permute(0, 3, 1, 2)
        found.append(see(trainer.model, pixels)[1])
    return torch.cat(found).clone()
