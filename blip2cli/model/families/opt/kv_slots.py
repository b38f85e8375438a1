"""OPT's KV slots: keys and values of image, prompt and generated tokens, in one row each."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2cli.model.decoding.async_copy import to_device
from blip2cli.model.decoding.kv_cache import KeyValue
from blip2cli.model.decoding.kv_slots import SlotShape
from blip2cli.model.decoding.requests import DecodeRequest
from blip2cli.model.decoding.slot_arena import Allocate
from blip2cli.model.decoding.slot_buffers import SlotBuffers
from blip2cli.model.families.opt.layer import attend, project_one
from blip2cli.model.layers.attention import prefix_masks

if TYPE_CHECKING:
    from blip2cli.model.families.opt.session import OptSession


class OptSlots:
    """Keys and values of S sequences, each with positions for the whole of it."""

    def __init__(
        self, session: OptSession, shape: SlotShape, count: int, allocate: Allocate = torch.zeros
    ) -> None:
        self.session = session
        self.shape = shape
        self.cache = session.new_cache(count, shape.capacity, allocate)
        dtype, device = session.images.dtype, session.images.device
        # In a list: ``SlotBuffers`` puts the view of the rows in use there (``use_first``).
        self._used = [torch.zeros(count, dtype=torch.long, device=device)]
        self.buffers = SlotBuffers(self.cache.pieces, self._used)
        self._numbers = torch.arange(count, device=device)
        # By the number of positions in front of the one that is decoded, [capacity, 1, 1, capacity]
        self._masks = prefix_masks(shape.capacity, dtype, device)[1:]
        # The first position that any slot was decoded to, where ``reorder`` begins to copy, and the
        # end of the longest prompt. Slots whose prompts are longer than others' have keys of their
        # prompts there, equal in all of a group.
        self.first_decoded, self.last_prefilled = shape.capacity, 0

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
        self.first_decoded, self.last_prefilled = self.shape.capacity, 0
        self.buffers.reset(count)

    def release(self) -> None:
        """Drop the images; only ``reset`` may follow."""
        del self.session

    def prefill(self, slots: Sequence[int], requests: Sequence[DecodeRequest]) -> list[int]:
        """Put images, and prompts but for their last ids, into slots; returns those last ids."""
        queries, length = self.session.images.shape[1], self.shape.prompt_positions
        filled = [queries + len(request.prompt) - 1 for request in requests]
        numbers = [list(slots), [request.image for request in requests], filled]
        if length:
            prompts = [request.image_prompt for request in requests]
            rows, prompt_cache = self.session.prompt_cache(prompts, length)
            numbers.append(rows)
        into, images, ends, *prompt_rows = to_device(numbers, self.used.device).unbind()
        if self.session.needs_images_once(requests):
            self.session.run_images(_ImageRows(self.cache.pairs(), into, images))
        else:
            self.cache.put(into, self.session.image_cache, images)
        if length:
            self.cache.put(into, prompt_cache, prompt_rows[0], queries)
        self.used.index_copy_(0, into, ends)
        self.first_decoded = min(self.first_decoded, *filled)
        self.last_prefilled = max(self.last_prefilled, *filled)
        return [request.prompt[-1] for request in requests]

    def decode_step(self, tokens: Tensor) -> Tensor:
        """See ``KVSlots``."""
        decoder = self.session.decoder
        used = last = self.used
        slots = self._numbers[: len(used)]
        mask = self._masks.index_select(0, used)
        hidden = decoder.place(decoder.embed_tokens(tokens.to(used.device)), used)[:, None]
        rotation = decoder.rotation(used[:, None])
        for layer, pair in zip(decoder.layers, self.cache.pairs(), strict=True):
            hidden, slots, last, mask = layer.receive(hidden, slots, last, mask)
            keys, values = pair.unbind(1)
            query, added = project_one(layer, hidden, rotation)
            pair[slots, :, :, last] = added
            hidden = layer.finish(hidden, attend(layer, query, keys, values, mask))
        # An empty slot advances as well; it must not exceed its capacity.
        used.add_(1).clamp_(max=self.shape.capacity - 1)
        return self.session.logits(hidden[:, 0].to(used.device))

    def reorder(self, into: Sequence[int], origin: Sequence[int], decoded: int) -> None:
        """See ``KVSlots``."""
        there, here = to_device((into, origin), self.used.device).unbind()
        end = self.last_prefilled + decoded
        self.cache.reorder(there, here, slice(self.first_decoded, end))

    def compact(self, slots: Sequence[int]) -> None:
        """See ``KVSlots``."""
        self.buffers.compact(slots)


class _ImageRows:
    """Puts the keys and values of images into slots, layer after layer."""

    def __init__(self, pairs: Sequence[Tensor], into: Tensor, images: Tensor) -> None:
        self._pairs = iter(pairs)
        self._into, self._images = into, images

    def append(self, pair: KeyValue) -> None:
        """Put those of the next layer into its slots."""
        for slots, rows in zip(next(self._pairs).unbind(1), pair, strict=True):
            into, images = self._into.to(rows.device), self._images.to(rows.device)
            slots[into, :, : rows.shape[2]] = rows[images]
