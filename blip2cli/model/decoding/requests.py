"""What is decoded: a request for one sequence, and the tokens generated for it."""

from __future__ import annotations

from dataclasses import dataclass, field

import torch

ImagePrompt = tuple[int, tuple[int, ...]]  # row of the features, and ids of the prompt behind it


@dataclass(frozen=True)
class DecodeRequest:
    """One sequence to be decoded."""

    image: int  # row of the features
    prompt: tuple[int, ...]  # ids, never empty
    max_tokens: int  # of this sequence
    # Tokens that its slot has positions for: at least ``max_tokens``, and one number for a whole
    # batch.
    reserved_tokens: int
    generator: torch.Generator | None = None  # None: greedy, as all of a batch are then

    @property
    def image_prompt(self) -> ImagePrompt:
        """The image with its prompt: requests of equal ones may share keys and values."""
        return self.image, self.prompt


@dataclass
class GeneratedTokens:
    """The tokens generated for one sequence so far."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def mean_logprob(self) -> float:
        """Mean log-probability of the tokens under the model's raw distribution."""
        return sum(self.logprobs) / len(self.logprobs)
