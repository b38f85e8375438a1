"""Decoder session: a language model with the images of one batch in front of it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import Protocol

import torch
from torch import Tensor

from blip2cli.model.decoding.kv_slots import KVSlots, SlotShape
from blip2cli.model.decoding.requests import DecodeRequest, ImagePrompt
from blip2cli.model.decoding.slot_arena import Allocate


class DecoderSession(Protocol):
    """What decoding asks of a language model. V is the vocabulary, D the width of its states."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    def slot_limit(self) -> int:
        """Slots that are open at once, at most; 0: any number.

        Not 0 where a matrix product of more rows has other bits: bfloat16 on a CPU with AMX (see
        ``layers/gemm_rows``); and on CUDA, where it follows the memory that was free.
        """

    @property
    def streamed_slots(self) -> int:
        """How many sequences a decode step takes where weights come from elsewhere at each step;
        0: they do not."""

    def slot_shape(self, request: DecodeRequest) -> SlotShape:
        """The slot that a request needs; it depends on nothing but the request."""

    def will_prefill(self, prompts: Sequence[ImagePrompt]) -> None:
        """Announce prompts that will be prefilled, in this order; computes nothing.

        The next prefill runs as many of them along as make a larger batch. What was announced
        before, and computed for it, is forgotten.
        """

    def forget_announced(self) -> None:
        """Free what was computed for announced prompts; none is announced any more."""

    def open_slots(self, shape: SlotShape, count: int, allocate: Allocate = torch.zeros) -> KVSlots:
        """``count`` empty slots.

        ``allocate`` makes the tensors of keys and values; where those are not zeros, the slots are
        reset before they are used (see ``cuda_graphs``).
        """

    def input_ids(self, request: DecodeRequest) -> tuple[int, ...]:
        """The ids before the first new token, as logits processors take them in transformers."""

    def padded_length(self, prompt_length: int, length: int) -> int:
        """The length, padding included, that a continuation of ``length`` ids is run with behind a
        prompt of ``prompt_length`` ids: the bits of its logits depend on it."""

    def continuation_states(
        self,
        prompts: Sequence[ImagePrompt],
        rows: Sequence[int],
        continuations: Sequence[Sequence[int]],
        length: int,
    ) -> Tensor:
        """Last hidden states [N, length + 1, D] after a prompt and after each token of N
        continuations; those behind the end of one of less than ``length`` tokens mean nothing.

        ``prompts`` are of one length, each run once; ``rows`` says which one each continuation
        follows.
        """

    def logits(self, hidden: Tensor) -> Tensor:
        """Last hidden states [..., D] to logits of the next token [..., V]."""


def with_announced(
    prompts: Sequence[ImagePrompt], announced: dict[ImagePrompt, None], size: int
) -> list[ImagePrompt]:
    """Each of ``prompts`` once, and as many of those announced as make ``size`` in all.

    What is returned is no longer in ``announced``.
    """
    batch = dict.fromkeys(prompts)
    for prompt in batch:
        announced.pop(prompt, None)
    following = list(itertools.islice(announced, max(0, size - len(batch))))
    for prompt in following:
        del announced[prompt]
    return [*batch, *following]


def round_up(number: int, step: int) -> int:
    """The next multiple of ``step``."""
    return -(-number // step) * step
