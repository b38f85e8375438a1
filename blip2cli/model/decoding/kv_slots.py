"""KV slots: the keys and values of the sequences that are decoded together, a slot each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True)
class DecodeRequest:
    """One sequence to be decoded."""

    image: int  # row of the features
    prompt: tuple[int, ...]  # ids, never empty
    max_tokens: int  # of this sequence
    # Tokens that its slot has positions for: at least ``max_tokens``, and one number for a whole
    # batch.
    reserved_tokens: int
    generator: torch.Generator | None = None  # to sample with; None: greedy


@dataclass(frozen=True)
class SlotShape:
    """The positions that a sequence needs. Sequences of one shape share slots."""

    context: int  # positions of what is read before the first step, padding included
    capacity: int  # positions that the decoder attends over


class KVSlots(Protocol):
    """Keys and values of S sequences, in tensors that are allocated once."""

    def prefill(self, slots: Sequence[int], requests: Sequence[DecodeRequest]) -> list[int]:
        """Read image and prompt of each request into a slot; returns the tokens to step with."""

    def decode_step(self, tokens: Tensor) -> Tensor:
        """Append one token a slot, [S]; returns the logits of the next tokens, [S, V]."""

    def reorder(self, into: Sequence[int], origin: Sequence[int]) -> None:
        """Copy what was decoded since prefill from slots to others, all at once.

        The context must be the same in both.
        """

    def compact(self, slots: Sequence[int]) -> None:
        """Keep only these slots, in this order."""
