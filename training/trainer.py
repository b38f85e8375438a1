"""Losses and recipe of the training of ``tiny``."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from training.build import build_config, build_model, build_processor, load_processor
from training.data import Batch
from training.evaluate import read, see
from training.heads import Heads
from training.learner import Learner, Pace


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a training run."""

    minutes: float = 200.0
    reading_minutes: float = 15.0  # more, in which only the language model learns
    scenes: int = 52  # pictures of each kind a step
    shapes: int = 12
    fresh: int = 1  # chunks of newly drawn scenes a step
    pool: int = 30_000
    muon_rate: float = 2e-3
    adam_rate: float = 1e-3
    weight_decay: float = 0.05
    seeing_only: float = 0.12  # share of the time before the text loss joins
    hold: float = 0.4  # share of the time before the learning rate falls
    patch_weight: float = 0.5
    query_weight: float = 0.3
    fade: float = 0.1  # what is left of the helper heads' weights at the end

    @property
    def pace(self) -> Pace:
        """How fast the weights learn."""
        return Pace(
            self.minutes,
            self.muon_rate,
            self.adam_rate,
            weight_decay=self.weight_decay,
            hold=self.hold,
        )


def helper_factor(share: float, hold: float, fade: float) -> float:
    """The helper heads' factor: 1 while the rate is held, then falling to ``fade``.

    By then the texts' loss is a hundredth of theirs, and would hardly count.
    """
    return 1.0 if share < hold else 1 - (1 - fade) * (share - hold) / (1 - hold)


class Trainer:
    """The model ``tiny`` while it is trained from nothing: its losses and its ``Learner``."""

    def __init__(self, recipe: Recipe, folder: Path, start_from: Path | None = None) -> None:
        """``start_from`` is an exported model to go on with; its helper heads start anew."""
        self.recipe = recipe
        self.processor = _processor(folder / "processor", start_from)
        self.model: Blip2ForConditionalGeneration = build_model(build_config(self.processor))
        self.heads = Heads()
        if start_from:
            loaded = Blip2ForConditionalGeneration.from_pretrained(start_from)
            self.model.load_state_dict(loaded.state_dict())
        self.learner = Learner(self.model, recipe.pace, folder, self.heads)

    def losses(self, model: Blip2ForConditionalGeneration, batch: Batch) -> dict[str, Tensor]:
        """The weighted losses of one batch; the text loss joins after the first stage."""
        share = self.learner.share
        image_embeds, query_output = see(model, batch.pixels)
        reading = share >= self.recipe.seeing_only
        factor = helper_factor(share, self.recipe.hold, self.recipe.fade)
        patch = factor * self.recipe.patch_weight if reading else 1.0
        query = factor * self.recipe.query_weight if reading else 1.0
        losses = {}
        for name, loss in self.heads.patch_losses(image_embeds.float(), batch).items():
            losses[name] = patch * loss
        for name, loss in self.heads.query_losses(query_output.float(), batch).items():
            losses[name] = query * loss
        if reading:
            logits, targets = read(model, query_output, batch)
            losses["text"] = cross_entropy(logits.float(), targets)
        return losses

    def step(self, batch: Batch) -> dict[str, float]:
        """One step of all optimisers; returns the losses."""
        losses: dict[str, Tensor] = {}

        def loss(model: Blip2ForConditionalGeneration) -> Tensor:
            losses.update(self.losses(model, batch))
            return torch.stack(list(losses.values())).sum()

        self.learner.step(loss)
        return {name: each.item() for name, each in losses.items()}


def _processor(folder: Path, start_from: Path | None) -> Blip2Processor:
    """The processor saved in ``folder``: a training keeps the vocabulary it began with."""
    if not folder.exists():
        first = load_processor(start_from) if start_from else build_processor()
        first.save_pretrained(folder)
    return load_processor(folder)
