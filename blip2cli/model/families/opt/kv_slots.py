"""OPT's KV slots: keys and values of image, prompt and generated tokens, in one row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blip2cli.model.decoding.kv_slots import SlotShape
from blip2cli.model.decoding.requests import DecodeRequest
from blip2cli.model.decoding.slot_arena import Allocate
from blip2cli.model.decoding.slot_buffers import SlotBuffers
from blip2cli.model.families.opt.layer import KeyValue, attend, project

if TYPE_CHECKING:
    from blip2cli.model.families.opt.session import OptSession


class OptSlots:
    """Keys and values of S sequences, by layer: [S, heads, capacity, head size]."""

    def __init__(
        self, session: OptSession, shape: SlotShape, count: int, allocate: Allocate = torch.zeros
    ) -> None:
        self.session = session
        self.shape = shape

        layers = session.decoder.layers
        each = [layers[number] for number in range(len(layers))]

        def of_layer(layer: Any) -> Tensor:
            attention, device = layer.self_attn, layer.device or session.device
            size = (count, attention.num_heads, shape.capacity, attention.head_dim)
            return allocate(size, dtype=session.images.dtype, device=device)

        self.keys, self.values = [*map(of_layer, each)], [*map(of_layer, each)]
        # In a list: ``SlotBuffers`` puts the view of the rows in use there (``use_first``).
        self._used = [torch.zeros(count, dtype=torch.long, device=session.images.device)]
        self.buffers = SlotBuffers(self.keys, self.values, self._used)
        # The first position that any slot was decoded to: where ``reorder`` begins to copy. Slots
        # whose prompts are longer have keys of their prompts there, equal in all of a group.
        self.first_decoded = shape.capacity

    @property
    def used(self) -> Tensor:
        """How many positions of each slot are filled, [S]."""
        return self._used[0]

    def use_first(self, count: int) -> None:
        """Use the first ``count`` slots."""
        self.buffers.use_first(count)

    def reset(self, session: OptSession, count: int) -> None:
        """Be as new, with ``count`` slots, for the images of another session."""
        self.session = session
        self.first_decoded = self.shape.capacity
        self.buffers.reset(count)

    def release(self) -> None:
        """Drop the images; only ``reset`` may follow."""
        del self.session

    def prefill(self, slots: Sequence[int], requests: Sequence[DecodeRequest]) -> list[int]:
        """Put images, and prompts but for their last ids, into slots; returns those last ids."""
        slot_ids = torch.tensor(slots, device=self.used.device)
        images = torch.tensor([request.image for request in requests], device=self.used.device)
        queries = self.session.images.shape[1]
        rows = _ImageRows(self, slot_ids, images)
        if self.session.needs_images_once(requests):
            self.session.run_images(rows)
        else:
            for pair in self.session.image_cache:
                rows.append(pair)
        if self.shape.prompt_positions:
            self._prefill_prompts(slot_ids, requests)
        filled = [queries + len(request.prompt) - 1 for request in requests]
        self.used[slot_ids] = torch.tensor(filled, device=self.used.device)
        self.first_decoded = min(self.first_decoded, *filled)
        return [request.prompt[-1] for request in requests]

    def _prefill_prompts(self, slot_ids: Tensor, requests: Sequence[DecodeRequest]) -> None:
        """Put keys and values of the prompts behind those of their images."""
        length, queries = self.shape.prompt_positions, self.session.images.shape[1]
        prompts = [request.image_prompt for request in requests]
        numbers, cache = self.session.prompt_cache(prompts, length)
        rows = torch.tensor(numbers, device=slot_ids.device)
        positions = slice(queries, queries + length)
        for number, (key, value) in enumerate(cache):
            into, origin = slot_ids.to(key.device), rows.to(key.device)
            self.keys[number][into, :, positions] = key[origin]
            self.values[number][into, :, positions] = value[origin]

    def decode_step(self, tokens: Tensor) -> Tensor:
        """See ``KVSlots``."""
        decoder = self.session.decoder
        used = self.used
        slots = torch.arange(len(used), device=used.device)
        seen = torch.arange(self.shape.capacity, device=used.device) <= used[:, None]
        hidden = decoder.place(decoder.embed_tokens(tokens.to(used.device)), used)[:, None]
        last, rotation = used, decoder.rotation(used, by_row=True)
        for layer, keys, values in zip(decoder.layers, self.keys, self.values, strict=True):
            hidden, slots, last, seen = layer.receive(hidden, slots, last, seen)
            query, key, value = project(layer, hidden, rotation)
            keys[slots, :, last] = key[:, :, 0]
            values[slots, :, last] = value[:, :, 0]
            hidden = layer.finish(hidden, attend(query, keys, values, seen[:, None, None]))
        # An empty slot advances as well; it must not exceed its capacity.
        used.add_(1).clamp_(max=self.shape.capacity - 1)
        return self.session.logits(hidden[:, 0].to(used.device))

    def reorder(self, into: Sequence[int], origin: Sequence[int]) -> None:
        """See ``KVSlots``."""
        pairs = torch.tensor((into, origin), device=self.used.device)
        decoded = slice(self.first_decoded, int(self.used[pairs[0]].max()))
        for tensor in (*self.keys, *self.values):
            there = pairs.to(tensor.device)
            tensor[there[0], :, decoded] = tensor[there[1], :, decoded]

    def compact(self, slots: Sequence[int]) -> None:
        """See ``KVSlots``."""
        self.buffers.compact(slots)


class _ImageRows:
    """Puts the keys and values of images into slots, layer after layer."""

    def __init__(self, slots: OptSlots, into: Tensor, images: Tensor) -> None:
        self._pairs = zip(slots.keys, slots.values, strict=True)
        self._into, self._images = into, images

    def append(self, pair: KeyValue) -> None:
        """Put those of the next layer into its slots."""
        for slots, rows in zip(next(self._pairs), pair, strict=True):
            into, images = self._into.to(rows.device), self._images.to(rows.device)
            slots[into, :, : rows.shape[2]] = rows[images]
