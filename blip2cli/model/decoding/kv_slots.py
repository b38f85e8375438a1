"""KV slots: the keys and values of the sequences that are decoded together, a slot each."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from blip2cli.model.decoding.requests import DecodeRequest


@dataclass(frozen=True)
class SlotShape:
    """The positions that a sequence needs. Sequences of one shape share slots."""

    # Positions whose number the prompt decides, padding included. OPT: the prompt's but for its
    # last id; the image's come in front of them and are not counted. T5: the encoder's states of
    # image and prompt.
    prompt_positions: int
    # Positions that the decoder attends over. OPT: those of the image, the prompt and new tokens.
    # T5: those of the new tokens.
    capacity: int


class KVSlots(Protocol):
    """Keys and values of S sequences, in tensors that are allocated once."""

    def prefill(self, slots: Sequence[int], requests: Sequence[DecodeRequest]) -> list[int]:
        """Run image and prompt of each request, into a slot; returns the first tokens to feed.

        There are no logits yet. The token returned is held back: the last id of the prompt (OPT),
        or the decoder's start token (T5). The first decode step is fed with it, and gives the
        logits of the first new token.
        """

    def decode_step(self, tokens: Tensor) -> Tensor:
        """Feed one token a slot, [S]; returns the logits of the next tokens, [S, V]."""

    def reorder(self, into: Sequence[int], origin: Sequence[int], decoded: int) -> None:
        """Copy what was decoded since prefill from slots to others, all at once.

        ``decoded`` is the largest number of steps since prefill among them. What was prefilled must
        be the same in both.
        """

    def compact(self, slots: Sequence[int]) -> None:
        """Keep only these slots, in this order."""
