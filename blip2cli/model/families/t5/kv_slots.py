"""T5's KV slots: keys and values of the decoder's own tokens, and of the encoder's states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2cli.model.decoding.async_copy import to_device
from blip2cli.model.decoding.kv_cache import KVCache
from blip2cli.model.decoding.kv_slots import SlotShape
from blip2cli.model.decoding.requests import DecodeRequest, ImagePrompt
from blip2cli.model.decoding.slot_arena import Allocate
from blip2cli.model.decoding.slot_buffers import SlotBuffers
from blip2cli.model.families.t5.net import attend
from blip2cli.model.grouping import grouped
from blip2cli.model.layers.attention import prefix_masks

if TYPE_CHECKING:
    from blip2cli.model.families.t5.session import T5Session


class T5Slots:
    """Keys and values of S sequences, by layer, of their tokens and of what the encoder read."""

    def __init__(
        self, session: T5Session, shape: SlotShape, count: int, allocate: Allocate = torch.zeros
    ) -> None:
        self.session = session
        self.shape = shape
        language = session.language
        self.decoder = language.decoder
        config, device = language.config, session.images.device
        kind = language.shared.weight.dtype
        blocks = (self.decoder.block[number] for number in range(len(self.decoder.block)))
        devices = [block.device or device for block in blocks]

        def new_cache(positions: int) -> KVCache:
            size = (count, config.num_heads, positions, config.d_kv)
            return KVCache(devices, size, kind, allocate)

        self.cache = new_cache(shape.capacity)
        self.encoder_cache = new_cache(shape.prompt_positions)
        # In lists: ``SlotBuffers`` puts the views of the rows in use there (``use_first``).
        self._encoder_lengths = [torch.ones(count, dtype=torch.long, device=device)]
        self._used = [torch.zeros(count, dtype=torch.long, device=device)]
        self.buffers = SlotBuffers(
            self.cache.pieces, self.encoder_cache.pieces, self._used, self._encoder_lengths
        )
        self._numbers = torch.arange(count, device=device)
        # What is added to scores, by the number of positions in front of the one that is decoded:
        # relative position bias, and minus infinity behind it, [capacity, heads, 1, capacity] …
        bias = self.decoder.bias(shape.capacity).to(device).transpose(0, 1)[:, :, None]
        self._bias = (bias + prefix_masks(shape.capacity, kind, device)[1:]).contiguous()
        # … and by the number of encoder states, [positions + 1, 1, 1, positions].
        self._encoder_masks = prefix_masks(shape.prompt_positions, kind, device)

    @property
    def used(self) -> Tensor:
        """How many positions of each slot's own sequence are filled, [S]."""
        return self._used[0]

    @property
    def encoder_lengths(self) -> Tensor:
        """How many encoder states each slot attends to, [S]."""
        return self._encoder_lengths[0]

    def use_first(self, count: int) -> None:
        """Use the first ``count`` slots."""
        self.buffers.use_first(count)

    def reset(self, session: T5Session, count: int) -> None:
        """Be as new, with ``count`` slots, for the images of another session."""
        self.session = session
        self.buffers.reset(count)
        self.encoder_lengths.fill_(1)

    def release(self) -> None:
        """Drop the images; only ``reset`` may follow."""
        del self.session

    def prefill(self, slots: Sequence[int], requests: Sequence[DecodeRequest]) -> list[int]:
        """Encode images with their prompts, each pair once, into slots; returns start tokens."""
        prompts = [request.image_prompt for request in requests]
        slots_of: dict[ImagePrompt, list[int]] = {}
        for slot, prompt in zip(slots, prompts, strict=True):
            slots_of.setdefault(prompt, []).append(slot)
        once = list(slots_of)
        states = self.session.encoder_states(once)
        groups = []  # by length: encoder states, slots, and the row that goes into each
        for length, members in grouped(map(len, states)):
            joined = torch.stack([states[number] for number in members])
            places = [slot for n in members for slot in slots_of[once[n]]]
            repeated = [row for row, n in enumerate(members) for _ in slots_of[once[n]]]
            into, origin = to_device((places, repeated), joined.device).unbind()
            groups.append((joined, into, origin))
            self.encoder_lengths.index_fill_(0, into, length)
            self.used.index_fill_(0, into, 0)
        for block, pair in zip(self.decoder.block, self.encoder_cache.pairs(), strict=True):
            for group in groups:
                joined, into, origin = block.receive(*group)
                together = block.layer[1].EncDecAttention.heads_together(joined, "k", "v")
                # From [U, R, 2, heads, size] to [slots, 2, heads, R, size]
                pair[into, :, :, : joined.shape[1]] = together.permute(0, 2, 3, 1, 4)[origin]
        return [self.session.start] * len(slots)

    def decode_step(self, tokens: Tensor) -> Tensor:
        """See ``KVSlots``."""
        used = last = self.used
        slots = self._numbers[: len(used)]
        bias = self._bias.index_select(0, used)
        mask = self._encoder_masks.index_select(0, self.encoder_lengths)
        hidden: Tensor = self.session.language.written_embeddings(tokens.to(used.device))[:, None]
        pairs = zip(self.cache.pairs(), self.encoder_cache.pairs(), strict=True)
        for block, (pair, encoder_pair) in zip(self.decoder.block, pairs, strict=True):
            self_part, cross_part, forward = block.layer
            hidden, slots, last, bias, mask = block.receive(hidden, slots, last, bias, mask)
            keys, values = pair.unbind(1)
            query, added = self_part.project_one(hidden)
            pair[slots, :, :, last] = added
            hidden = self_part.SelfAttention.o(attend(query, keys, values, bias), hidden)
            hidden = forward(cross_part(hidden, *encoder_pair.unbind(1), mask))
        # An empty slot advances as well; it must not exceed its capacity.
        used.add_(1).clamp_(max=self.shape.capacity - 1)
        return self.session.logits(self.decoder.final_layer_norm(hidden[:, 0].to(used.device)))

    def reorder(self, into: Sequence[int], origin: Sequence[int], decoded: int) -> None:
        """See ``KVSlots``."""
        there, here = to_device((into, origin), self.used.device).unbind()
        self.cache.reorder(there, here, slice(decoded))

    def compact(self, slots: Sequence[int]) -> None:
        """See ``KVSlots``."""
        self.buffers.compact(slots)
