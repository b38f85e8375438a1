"""Model, helper heads and optimisers of a training, and how a step changes them."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from transformers import Blip2ForConditionalGeneration, Blip2Processor

from blip2cli.model.placement.dtype import cpu_bfloat16
from training.build import build_config, build_model, build_processor, load_processor
from training.data import Batch
from training.evaluate import read, see
from training.heads import Heads
from training.learner import Pace, adam, bfloat16_twin, optimizers, rate_factor


@dataclass(frozen=True)
class Recipe:
    """Everything that shapes a training run."""

    minutes: float = 200.0
    reading_minutes: float = 15.0  # more, in which the language model learns alone
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
        return Pace(self.minutes, self.muon_rate, self.adam_rate, self.weight_decay, self.hold)


def helper_factor(share: float, hold: float, fade: float) -> float:
    """The helper heads' factor: 1 while the rate is held, then falling to ``fade``.

    By then the texts' loss is a hundredth of theirs, and would hardly be heard.
    """
    return 1.0 if share < hold else 1 - (1 - fade) * (share - hold) / (1 - hold)


class Trainer:
    """Model, helper heads, optimisers and progress, as one thing that can be saved."""

    def __init__(self, recipe: Recipe, folder: Path, start_from: Path | None = None) -> None:
        """``start_from`` is an exported model to go on with; its helper heads start anew."""
        self.recipe, self.folder = recipe, folder
        self.processor = self._processor(start_from)
        self.model: Blip2ForConditionalGeneration = build_model(build_config(self.processor))
        self.heads = Heads()
        self.optimizers: list[torch.optim.Optimizer] = [
            *optimizers(dict(self.model.named_parameters()), recipe.pace)[0],
            adam(list(self.heads.parameters()), recipe.pace.adam_rate),
        ]
        if start_from:
            loaded = Blip2ForConditionalGeneration.from_pretrained(start_from)
            self.model.load_state_dict(loaded.state_dict())
        self.twin = bfloat16_twin(self.model) if cpu_bfloat16() else None
        self.rates = [recipe.pace.muon_rate, recipe.pace.adam_rate, recipe.pace.adam_rate]
        self.steps, self.seconds = 0, 0.0

    def _processor(self, start_from: Path | None) -> Blip2Processor:
        """The vocabulary a training begins with is the one it keeps, whatever changes later."""
        kept = self.folder / "processor"
        if not kept.exists():
            first = load_processor(start_from) if start_from else build_processor()
            first.save_pretrained(kept)
        return load_processor(kept)

    @property
    def share(self) -> float:
        """How much of the recipe's time is used up, 0 to 1."""
        return self.seconds / 60 / self.recipe.minutes

    @property
    def checkpoint(self) -> Path:
        """Where the state is kept between runs."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the state so that a stop at any instant leaves a whole file."""
        state = {
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimizers": [each.state_dict() for each in self.optimizers],
            "steps": self.steps,
            "seconds": self.seconds,
        }
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.checkpoint)

    def restore(self) -> bool:
        """Go on from the last checkpoint, if there is one."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, weights_only=True)
        self.model.load_state_dict(state["model"])
        self.heads.load_state_dict(state["heads"])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.steps, self.seconds = state["steps"], state["seconds"]
        return True

    def computing_model(self) -> Blip2ForConditionalGeneration:
        """The model that computes: the twin with the weights as they are now, if there is one."""
        if self.twin is None:
            return self.model
        with torch.no_grad():
            torch._foreach_copy_(list(self.twin.parameters()), list(self.model.parameters()))
        return self.twin

    def _collect_gradients(self) -> None:
        """Hand the twin's gradients to the weights."""
        if self.twin is None:
            return
        for weight, copied in zip(self.model.parameters(), self.twin.parameters(), strict=True):
            weight.grad = None if copied.grad is None else copied.grad.float()
            copied.grad = None

    def losses(self, batch: Batch) -> dict[str, torch.Tensor]:
        """The weighted losses of one batch; the text loss joins after the first stage."""
        model = self.computing_model()
        image_embeds, query_output = see(model, batch.pixels)
        reading = self.share >= self.recipe.seeing_only
        helped = helper_factor(self.share, self.recipe.hold, self.recipe.fade)
        patch = helped * self.recipe.patch_weight if reading else 1.0
        query = helped * self.recipe.query_weight if reading else 1.0
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
        """One step of both optimisers; returns the losses."""
        factor = rate_factor(self.share, self.steps, self.recipe.hold)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
        losses = self.losses(batch)
        torch.stack(list(losses.values())).sum().backward()
        self.apply(self.optimizers)
        self.steps += 1
        return {name: loss.item() for name, loss in losses.items()}

    def apply(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Take the step that the gradients of the computing model call for."""
        self._collect_gradients()
        parameters = [*self.model.parameters(), *self.heads.parameters()]
        nn.utils.clip_grad_norm_([p for p in parameters if p.grad is not None], 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)

    def reading_optimizers(self) -> tuple[list[torch.optim.Optimizer], list[float]]:
        """Optimisers of the language model alone, and their rates."""
        parameters = {
            name: parameter
            for name, parameter in self.model.named_parameters()
            if name.startswith(("language_model", "language_projection"))
        }
        return optimizers(parameters, self.recipe.pace)
