"""Training loop: optimisers, learning rate, mixed precision and checkpoints.

The hidden matrices are trained with Muon, everything else with AdamW; the learning rate is held,
then falls linearly to zero. Where the CPU has bfloat16 matrix instructions the gradients are
computed by a copy in bfloat16, and applied to the float32 weights.
"""

from __future__ import annotations

import copy
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Generic, TypeVar

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel
from transformers.activations import NewGELUActivation

from blip2cli.model.placement.dtype import cpu_bfloat16

Model = TypeVar("Model", bound=PreTrainedModel)


@dataclass(frozen=True)
class Pace:
    """How long a model learns, and how fast."""

    minutes: float
    muon_rate: float = 2e-3
    adam_rate: float = 1e-3
    distance_rate: float = 3e-2  # of T5's biases by distance
    weight_decay: float = 0.05
    hold: float = 0.4  # share of the time before the learning rate falls
    warm_up: int = 200  # steps


def rate_factor(share: float, steps: int, hold: float, warm_up: int = 200) -> float:
    """The learning rate's factor after ``share`` of the time: warm-up, hold, fall to zero."""
    fall = 1.0 if share < hold else max(0.0, (1 - share) / (1 - hold))
    return min(1.0, (steps + 1) / warm_up) * fall


def adam(parameters: list[nn.Parameter], rate: float) -> torch.optim.Optimizer:
    """AdamW with the settings that all models here use."""
    return torch.optim.AdamW(parameters, lr=rate, betas=(0.9, 0.98), weight_decay=0.01, fused=True)


def optimizers(
    parameters: Mapping[str, nn.Parameter], pace: Pace
) -> tuple[list[torch.optim.Optimizer], list[float]]:
    """Muon for the hidden matrices, AdamW for the rest, and each one's full rate.

    What joins a model to its inputs and outputs (embeddings, projections between its components,
    heads) is no hidden matrix (Jordan et al. 2024, "Muon"). T5's biases by distance are all it
    knows of the order of words. They are added to scores before the softmax, so they must grow to
    several before a head looks at one place; at the rate of the rest that takes thousands of steps.
    """
    matrices: list[nn.Parameter] = []
    distances: list[nn.Parameter] = []
    others: list[nn.Parameter] = []
    for name, parameter in parameters.items():
        if "relative_attention_bias" in name:
            distances.append(parameter)
        elif parameter.dim() == 2 and not _is_outer(name):
            matrices.append(parameter)
        else:
            others.append(parameter)
    muon = torch.optim.Muon(
        matrices, lr=pace.muon_rate, weight_decay=pace.weight_decay, adjust_lr_fn="match_rms_adamw"
    )
    chosen = [muon, adam(others, pace.adam_rate)]
    rates = [pace.muon_rate, pace.adam_rate]
    if distances:
        chosen.append(adam(distances, pace.distance_rate))
        rates.append(pace.distance_rate)
    return chosen, rates


def _is_outer(name: str) -> bool:
    outer = ("embed", "shared", "head", "language_projection", "vision_projection")
    return any(part in name for part in (*outer, "text_projection"))


class Learner(Generic[Model]):
    """Optimisers, progress and checkpoint of a model, and of helper heads beside it.

    Trains the parameters of ``model`` that require a gradient, and all of ``heads``. The checkpoint
    lies in ``folder``.
    """

    def __init__(
        self, model: Model, pace: Pace, folder: Path, heads: nn.Module | None = None
    ) -> None:
        self.model, self.pace, self.folder = model, pace, folder
        self._weights = {n: p for n, p in model.named_parameters() if p.requires_grad}
        self.trained = dict(self._weights)
        self.optimizers, self.rates = optimizers(self._weights, pace)
        if heads is not None:
            self.trained |= {f"heads.{name}": p for name, p in heads.named_parameters()}
            self.optimizers.append(adam(list(heads.parameters()), pace.adam_rate))
            self.rates.append(pace.adam_rate)
        self.twin = bfloat16_twin(model) if cpu_bfloat16() else None
        self.steps, self.seconds = 0, 0.0
        self._since = time.monotonic()

    @property
    def share(self) -> float:
        """How much of the time is used up, 0 to 1 and a little more."""
        return self.seconds / 60 / max(self.pace.minutes, 1e-9)

    @property
    def checkpoint(self) -> Path:
        """The file that holds the state between runs."""
        return self.folder / "checkpoint.pt"

    def save(self) -> None:
        """Write the state so that a stop at any instant leaves a whole file."""
        self.folder.mkdir(parents=True, exist_ok=True)
        state = {
            "weights": {name: weight.data for name, weight in self.trained.items()},
            "optimizers": [each.state_dict() for each in self.optimizers],
            "steps": self.steps,
            "seconds": self.seconds,
        }
        temporary = self.checkpoint.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, self.checkpoint)

    def restore(self) -> bool:
        """Load the last checkpoint; False: there is none."""
        if not self.checkpoint.exists():
            return False
        state = torch.load(self.checkpoint, weights_only=True)
        with torch.no_grad():
            for name, weight in self.trained.items():
                weight.copy_(state["weights"][name])
        for optimizer, saved in zip(self.optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
        self.steps, self.seconds = state["steps"], state["seconds"]
        self._since = time.monotonic()
        return True

    def computing_model(self) -> Model:
        """The model that computes gradients: the bfloat16 twin, updated, if there is one."""
        if self.twin is None:
            return self.model
        with torch.no_grad():
            torch._foreach_copy_(self._copies(self.twin), list(self._weights.values()))
        return self.twin

    def collect_gradients(self) -> None:
        """Move the twin's gradients to the weights."""
        if self.twin is None:
            return
        for weight, copied in zip(self._weights.values(), self._copies(self.twin), strict=True):
            weight.grad = None if copied.grad is None else copied.grad.float()
            copied.grad = None

    @staticmethod
    def _copies(twin: Model) -> list[Tensor]:
        return [parameter for parameter in twin.parameters() if parameter.requires_grad]

    def step(self, *losses: Callable[[Model], Tensor]) -> float:
        """One step on the sum of the losses; returns it. Each graph is freed before the next."""
        factor = rate_factor(self.share, self.steps, self.pace.hold, self.pace.warm_up)
        for optimizer, rate in zip(self.optimizers, self.rates, strict=True):
            optimizer.param_groups[0]["lr"] = rate * factor
        model = self.computing_model()
        total = 0.0
        for loss in losses:
            value = loss(model)
            value.backward()
            total += value.item()
        self.collect_gradients()
        nn.utils.clip_grad_norm_(self.trained.values(), 1.0)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        self.steps += 1
        now = time.monotonic()
        self.seconds, self._since = self.seconds + now - self._since, now
        return total

    def run(
        self,
        step: Callable[[], Mapping[str, float]],
        report: Callable[[], str],
        report_minutes: float = 5,
    ) -> None:
        """Call ``step`` until the time is used up; print its mean losses and, rarely, a report."""
        print(f"step {self.steps}, {self.seconds / 60:.1f} min", flush=True)
        saved = reported = self.seconds
        means: dict[str, float] = {}
        self._since = time.monotonic()
        while self.share < 1:
            for name, loss in step().items():
                means[name] = 0.98 * means.get(name, loss) + 0.02 * loss
            if self.steps % 100 == 0:
                line = " ".join(f"{name} {mean:.4f}" for name, mean in means.items())
                print(f"{self.seconds / 60:6.1f} min, step {self.steps}: {line}", flush=True)
            if self.seconds - saved > 120:
                self.save()
                saved = self.seconds
            if self.seconds - reported > 60 * report_minutes:
                reported = self.seconds
                self.model.eval()
                print(report(), flush=True)
                self.model.train()
        self.save()
        self.model.eval()

    def forget(self) -> None:
        """Delete the checkpoint: the next run begins anew."""
        self.checkpoint.unlink(missing_ok=True)


def bfloat16_twin(model: Model) -> Model:
    """A copy that computes in bfloat16, with matrix products for attention.

    Measured on two cores with AVX512-BF16: a step of ``tiny`` takes 0.44 s instead of 0.70 s. The
    fused attention is slow in bfloat16 there, and would take the gain away; T5's GELU, written
    out in eight steps, is a quarter of a step's time, and is the same function in one.
    """
    twin = copy.deepcopy(model).bfloat16()
    for module in list(twin.modules()):
        if isinstance(module, PreTrainedModel):
            module.set_attn_implementation("eager")
        for name, child in module.named_children():
            if isinstance(child, NewGELUActivation):
                setattr(module, name, nn.GELU("tanh"))
    return twin
