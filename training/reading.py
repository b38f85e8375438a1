"""Last stage of training ``tiny``: only the language model and its projection learn.

Query outputs are then fixed, so they are computed once for every picture, and a step costs a fifth.
Questions about left and right come more often: to find the object that a question names among the
query outputs and read its place there is what the language model learns last.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Blip2ForConditionalGeneration

from blip2cli.tiny.scenes import Scene
from training.data import Packer, mirrored, scene_chunks
from training.easyvqa import load_split
from training.evaluate import read, see
from training.learner import Learner
from training.trainer import Trainer

SEED = 5_000
_Example = tuple[NDArray[np.uint8], Scene]


def train_language_model(trainer: Trainer, packer: Packer, minutes: float, scenes: int) -> None:
    """Train only the language model of ``trainer`` for ``minutes``, on ``scenes`` pictures.

    The learning rate falls linearly from the start.
    """
    model = trainer.model
    seen = _draw(scenes)
    shapes = load_split("train")
    scene_features = _features(model, [pixels for pixels, _ in seen])
    shape_features = _features(model, [shape.pixels for shape in shapes])
    for name, parameter in model.named_parameters():
        parameter.requires_grad_(name.startswith(("language_model", "language_projection")))
    pace = replace(trainer.recipe.pace, minutes=minutes, hold=0.0, warm_up=100)
    learner = Learner(model, pace, trainer.learner.folder / "reading")
    learner.restore()
    rng = random.Random(SEED + learner.steps)

    def step() -> dict[str, float]:
        chosen = rng.sample(range(len(seen)), trainer.recipe.scenes)
        others = rng.sample(range(len(shapes)), trainer.recipe.shapes)
        batch = packer.batch(
            [seen[i] for i in chosen],
            [(shapes[i].pixels, shapes[i]) for i in others],
            rng,
            sides=True,
        )
        query_output = torch.cat([scene_features[chosen], shape_features[others]])

        def loss(model: Blip2ForConditionalGeneration) -> Tensor:
            logits, targets = read(model, query_output.to(model.dtype), batch)
            return cross_entropy(logits.float(), targets)

        return {"reading": learner.step(loss)}

    learner.run(step, lambda: "", report_minutes=math.inf)
    learner.forget()


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
def _features(
    model: Blip2ForConditionalGeneration, pictures: Sequence[NDArray[np.uint8]]
) -> Tensor:
    """The query outputs of uint8 pictures [S, S, 3]: float32 [N, Q, W]."""
    found = []
    for start in range(0, len(pictures), 64):
        pixels = torch.from_numpy(np.stack(pictures[start : start + 64])).permute(0, 3, 1, 2)
        found.append(see(model, pixels)[1])
    return torch.cat(found).clone()
