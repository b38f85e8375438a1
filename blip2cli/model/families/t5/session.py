"""T5's decoder session: the encoder reads [image features][prompt], the decoder generates.

The arithmetic is that of transformers' ``T5ForConditionalGeneration`` with eager attention
(``modeling_t5.py``). The encoder attends in both directions, so nothing but an image's features can
be shared by its prompts; prompts are never padded, because that would move T5's relative positions.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from blip2cli.model.decoding.async_copy import to_device
from blip2cli.model.decoding.kv_slots import SlotShape
from blip2cli.model.decoding.requests import DecodeRequest, ImagePrompt
from blip2cli.model.decoding.session import round_up, with_announced
from blip2cli.model.decoding.slot_arena import Allocate
from blip2cli.model.families.t5.kv_slots import T5Slots
from blip2cli.model.grouping import grouped
from blip2cli.model.layers.streamed import STREAMED_ROWS, streamed_slots

# Lengths are rounded up to multiples of these, so that sequences of almost one length share slots.
CONTEXT_STEP = 16
CAPACITY_STEP = 8
LENGTH_STEP = 4
PROMPTS_TOGETHER = 64  # images with prompts that are encoded together


class T5Session:
    """T5 with the images of one batch, [B, Q, D] as its encoder reads them."""

    def __init__(
        self, language: Any, images: Tensor, prompts_together: int = PROMPTS_TOGETHER
    ) -> None:
        self._prompts_together = prompts_together
        self.language = language
        self.images = images
        start = language.config.decoder_start_token_id
        if start is None:
            start = language.config.pad_token_id or 0  # T5 starts from its padding
        self.start = int(start)
        self._announced: dict[ImagePrompt, None] = {}
        self._encoded: dict[ImagePrompt, Tensor] = {}

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def slot_limit(self) -> int:
        limit: int = self.language.lm_head.sequences_per_gemm(1)
        return limit

    @property
    def streamed_slots(self) -> int:
        return streamed_slots(self.language.decoder.block, len(self.images))

    def slot_shape(self, request: DecodeRequest) -> SlotShape:
        context = self.images.shape[1] + len(request.prompt)
        return SlotShape(
            round_up(context, CONTEXT_STEP), round_up(request.reserved_tokens, CAPACITY_STEP)
        )

    def input_ids(self, request: DecodeRequest) -> tuple[int, ...]:
        """The decoder's start token."""
        return (self.start,)

    def will_prefill(self, prompts: Sequence[ImagePrompt]) -> None:
        # Slots are prefilled a few at a time, and few of those have prompts of one length.
        self.forget_announced()
        self._announced = dict.fromkeys(prompts)

    def forget_announced(self) -> None:
        self._announced = {}
        self._encoded = {}

    def encoder_states(self, prompts: Sequence[ImagePrompt]) -> list[Tensor]:
        """Encoder states [Q + T, D]; prompts that were announced are encoded with them."""
        missing = [prompt for prompt in prompts if prompt not in self._encoded]
        if missing:
            known = {p: self._encoded[p] for p in prompts if p in self._encoded}
            together = self._prompts_together * (STREAMED_ROWS if self.streamed_slots else 1)
            batch = with_announced(missing, self._announced, together)
            self._encoded = known | dict(zip(batch, self.encode(batch), strict=True))
        return [self._encoded[prompt] for prompt in prompts]

    def open_slots(self, shape: SlotShape, count: int, allocate: Allocate = torch.zeros) -> T5Slots:
        return T5Slots(self, shape, count, allocate)

    def encode(self, prompts: Sequence[ImagePrompt]) -> list[Tensor]:
        """Encoder states [Q + T, D] of images with prompts, those of equal length together."""
        found: list[Tensor] = [self.images] * len(prompts)
        for _, members in grouped(len(ids) for _, ids in prompts):
            pairs = [prompts[number] for number in members]
            packed = to_device([(image, *ids) for image, ids in pairs], self.images.device)
            embedded = self.language.shared(packed[:, 1:])
            embeds = torch.cat((self.images[packed[:, 0]].to(embedded.dtype), embedded), dim=1)
            states = self.language.encoder(embeds)
            for number, state in zip(members, states, strict=True):
                found[number] = state
        return found

    def padded_length(self, prompt_length: int, length: int) -> int:
        # ``continuation_states`` puts the start token in front.
        return round_up(1 + length, LENGTH_STEP) - 1

    def continuation_states(
        self,
        prompts: Sequence[ImagePrompt],
        rows: Sequence[int],
        continuations: Sequence[Sequence[int]],
        length: int,
    ) -> Tensor:
        total = round_up(1 + length, LENGTH_STEP)
        padded = [(self.start, *each, *(0,) * (total - 1 - len(each))) for each in continuations]
        # Two measures for equal bits. The keys of a single row are strided in memory, those of
        # several contiguous, and where a row's scores begin depends on the length: of few positions
        # such products are computed in different orders.
        times = 2 if len(padded) == 1 else 1
        packed = to_device(
            [(row, *ids) for row, ids in zip(rows, padded, strict=True)], self.device
        )
        packed = packed.repeat(times, 1)
        decoded = self.language.decoder(
            self.language.written_embeddings(packed[:, 1:]),
            torch.stack(self.encoder_states(prompts)),
            packed[:, 0],
        )
        states: Tensor = decoded[: len(padded), : 1 + length]
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        if self.language.config.scales_output:
            hidden = hidden * (self.language.config.d_model**-0.5)
        logits: Tensor = self.language.lm_head(hidden)
        return logits
