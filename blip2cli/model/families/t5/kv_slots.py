"""T5's KV slots: keys and values of the decoder's own tokens, and of the encoder's states."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2cli.model.decoding.kv_slots import SlotShape
from blip2cli.model.decoding.requests import DecodeRequest, ImagePrompt
from blip2cli.model.decoding.slot_arena import Allocate
from blip2cli.model.decoding.slot_buffers import SlotBuffers
from blip2cli.model.families.t5.net import attend
from blip2cli.model.grouping import grouped

if TYPE_CHECKING:
    from blip2cli.model.families.t5.session import T5Session


class T5Slots:
    """Keys and values of S sequences by layer, [S, heads, positions, head size]."""

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

        def of_layers(positions: int) -> list[Tensor]:
            size = (count, config.num_heads, positions, config.d_kv)
            return [allocate(size, dtype=kind, device=where) for where in devices]

        self.keys, self.values = of_layers(shape.capacity), of_layers(shape.capacity)
        self.encoder_keys, self.encoder_values = (
            of_layers(shape.prompt_positions),
            of_layers(shape.prompt_positions),
        )
        # In lists: ``SlotBuffers`` puts the views of the rows in use there (``use_first``).
        self._encoder_lengths = [torch.ones(count, dtype=torch.long, device=device)]
        self._used = [torch.zeros(count, dtype=torch.long, device=device)]
        self.buffers = SlotBuffers(
            self.keys,
            self.values,
            self.encoder_keys,
            self.encoder_values,
            self._used,
            self._encoder_lengths,
        )
        # [heads, position, position attended to]
        self.bias = self.decoder.bias(shape.capacity).to(device)

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
            device = joined.device
            into = torch.tensor([s for n in members for s in slots_of[once[n]]], device=device)
            repeated = [row for row, n in enumerate(members) for _ in slots_of[once[n]]]
            groups.append((joined, into, torch.tensor(repeated, device=device)))
            self.encoder_lengths[into] = length
            self.used[into] = 0
        for number, block in enumerate(self.decoder.block):
            keys, values = self.encoder_keys[number], self.encoder_values[number]
            for group in groups:
                joined, into, origin = block.receive(*group)
                key, value = block.layer[1].EncDecAttention.split_heads(joined, "k", "v")
                keys[into, :, : joined.shape[1]] = key[origin]
                values[into, :, : joined.shape[1]] = value[origin]
        return [self.session.start] * len(slots)

    def decode_step(self, tokens: Tensor) -> Tensor:
        """See ``KVSlots``."""
        used = self.used
        slots = torch.arange(len(used), device=used.device)
        unseen = torch.arange(self.shape.capacity, device=used.device) > used[:, None]
        encoded = torch.arange(self.shape.prompt_positions, device=used.device)
        padding = encoded >= self.encoder_lengths[:, None]
        bias = self.bias[:, used].transpose(0, 1)[:, :, None]  # [S, heads, 1, capacity]
        bias = bias.masked_fill(unseen[:, None, None], -torch.inf)
        mask = bias.new_zeros(padding.shape).masked_fill_(padding, -torch.inf)[:, None, None]
        hidden: Tensor = self.session.language.written_embeddings(tokens.to(used.device))[:, None]
        last = used
        for number, block in enumerate(self.decoder.block):
            self_part, cross_part, forward = block.layer
            hidden, slots, last, bias, mask = block.receive(hidden, slots, last, bias, mask)
            attention = self_part.SelfAttention
            query, key, value = attention.split_heads(self_part.layer_norm(hidden), "q", "k", "v")
            keys, values = self.keys[number], self.values[number]
            keys[slots, :, last] = key[:, :, 0]
            values[slots, :, last] = value[:, :, 0]
            hidden = attention.o(attend(query, keys, values, bias), hidden)
            attention = cross_part.EncDecAttention
            (query,) = attention.split_heads(cross_part.layer_norm(hidden), "q")
            encoder = self.encoder_keys[number], self.encoder_values[number]
            hidden = forward(attention.o(attend(query, *encoder, mask), hidden))
        # An empty slot advances as well; it must not exceed its capacity.
        used.add_(1).clamp_(max=self.shape.capacity - 1)
        return self.session.logits(self.decoder.final_layer_norm(hidden[:, 0].to(used.device)))

    def reorder(self, into: Sequence[int], origin: Sequence[int]) -> None:
        """See ``KVSlots``."""
        pairs = torch.tensor((into, origin), device=self.used.device)
        decoded = slice(int(self.used[pairs[0]].max()))
        for tensor in (*self.keys, *self.values):
            there = pairs.to(tensor.device)
            tensor[there[0], :, decoded] = tensor[there[1], :, decoded]

    def compact(self, slots: Sequence[int]) -> None:
        """See ``KVSlots``."""
        self.buffers.compact(slots)
