"""Decoder session of OPT, and of families whose layers offer the same (``families/llama/net``):
[image features][prompt] as one sequence, then one token a step.

The arithmetic is that of transformers' ``OPTForCausalLM``. The keys and values of an image are
computed once and serve all its prompts.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor
from torch.nn.functional import pad

from blip2cli.model.decoding.async_copy import to_device
from blip2cli.model.decoding.kv_cache import KeyValue, KVCache
from blip2cli.model.decoding.kv_slots import SlotShape
from blip2cli.model.decoding.requests import DecodeRequest, ImagePrompt
from blip2cli.model.decoding.session import round_up, with_announced
from blip2cli.model.decoding.slot_arena import Allocate
from blip2cli.model.families.opt.kv_slots import OptSlots
from blip2cli.model.families.opt.layer import attend, heads_first, prepend, project
from blip2cli.model.families.opt.prompt_tree import PromptTree
from blip2cli.model.layers.attention import additive_mask
from blip2cli.model.layers.linear import merge_sequences, split_sequences
from blip2cli.model.layers.streamed import STREAMED_ROWS, streamed_slots

if TYPE_CHECKING:
    from blip2cli.model.vision.features import ImageFeatures

# Lengths are rounded up to multiples of these, so that sequences of almost one length share slots.
# It also keeps the bits: where a row's scores begin at an odd place in memory, small products
# (heads of 16, up to 11 positions) are computed in another order than where they begin at an even
# one.
PROMPT_STEP = 4
CAPACITY_STEP = 8
POSITIONS_TOGETHER = 1024  # of prompts that run together, those announced included


class CacheSink(Protocol):
    """What is given the keys and values of one layer after the other; a ``KVCache`` is one."""

    def append(self, pair: KeyValue, /) -> None:
        """Take those of the next layer."""


class OptSession:
    """OPT with the images of one batch, [B, Q, D] as the language model reads them.

    ``placeholder`` is the id that stands for an image position in ``input_ids``. Prompts run
    together while they have ``positions_together``.
    """

    def __init__(
        self,
        language: Any,
        images: Tensor,
        placeholder: int,
        positions_together: int = POSITIONS_TOGETHER,
    ) -> None:
        self.decoder = language.decoder
        self.images = images.to(self.decoder.embed_tokens.weight.dtype)
        self.placeholder = placeholder
        self._positions_together = positions_together
        self.head = language.lm_head
        self._image_cache: KVCache | None = None
        self._announced: dict[ImagePrompt, None] = {}
        # Prompts that were prefilled, with their rows in the cache.
        self._prompt_cache: tuple[dict[ImagePrompt, int], KVCache | None] = {}, None
        # Beginnings of the prompts that were last continued.
        self._prefix_cache: tuple[list[ImagePrompt], KVCache | None] = [], None

    @property
    def device(self) -> torch.device:
        return self.images.device

    @property
    def slot_limit(self) -> int:
        limit: int = self.head.sequences_per_gemm(1)
        return limit

    @property
    def streamed_slots(self) -> int:
        return streamed_slots(self.decoder.layers, len(self.images))

    def slot_shape(self, request: DecodeRequest) -> SlotShape:
        # The first step is fed with the last id of the prompt.
        prompt = round_up(len(request.prompt) - 1, PROMPT_STEP)
        positions = self.images.shape[1] + prompt + request.reserved_tokens
        return SlotShape(prompt, round_up(positions, CAPACITY_STEP))

    def input_ids(self, request: DecodeRequest) -> tuple[int, ...]:
        """Image placeholders and prompt."""
        return (self.placeholder,) * self.images.shape[1] + request.prompt

    def will_prefill(self, prompts: Sequence[ImagePrompt]) -> None:
        # Slots are prefilled a few at a time, and each forward pass reads all weights from memory.
        self.forget_announced()
        self._announced = dict.fromkeys(prompts)

    def forget_announced(self) -> None:
        self._announced = {}
        self._prompt_cache = {}, None
        self._prefix_cache = [], None

    def prompt_cache(
        self, prompts: Sequence[ImagePrompt], length: int
    ) -> tuple[list[int], KVCache]:
        """Keys and values of prompts without their last ids, padded to ``length``, and the rows
        there of ``prompts``; prompts that were announced run with them."""
        rows, cache = self._prompt_cache
        if cache is None or any(prompt not in rows for prompt in prompts):
            together = self._positions_together * (STREAMED_ROWS if self.streamed_slots else 1)
            batch = with_announced(prompts, self._announced, together // length)
            rows = {prompt: row for row, prompt in enumerate(batch)}
            cache = self.prompt_keys_values([(image, ids[:-1]) for image, ids in batch], length)
            self._prompt_cache = rows, cache
        return [rows[prompt] for prompt in prompts], cache

    def open_slots(
        self, shape: SlotShape, count: int, allocate: Allocate = torch.zeros
    ) -> OptSlots:
        return OptSlots(self, shape, count, allocate)

    def new_cache(
        self, rows: int, positions: int, allocate: Callable[..., Tensor] = torch.empty
    ) -> KVCache:
        """A cache of keys and values for all layers."""
        layers = self.decoder.layers
        each = [layers[number] for number in range(len(layers))]
        attention = each[0].self_attn
        return KVCache(
            [layer.device or self.device for layer in each],
            (rows, attention.num_heads, positions, attention.head_dim),
            self.images.dtype,
            allocate,
        )

    @property
    def image_cache(self) -> KVCache:
        """Keys and values of the images, computed when they are first needed."""
        if self._image_cache is None:
            cache = self.new_cache(*self.images.shape[:2])
            self.run_images(cache)
            self._image_cache = cache
        return self._image_cache

    def run_images(self, cache: CacheSink) -> None:
        """Run the images, and give ``cache`` the keys and values of each layer."""
        positions = torch.arange(self.images.shape[1], device=self.images.device)
        hidden = self.decoder.place(self.images, positions)
        self.run(hidden, positions, positions <= positions[:, None], cache=cache)

    def needs_images_once(self, requests: Sequence[DecodeRequest]) -> bool:
        """Whether keys and values of images belong into slots alone: of a large batch they are as
        large as the slots, and where layers are streamed such memory is missing for weights."""
        if not self.streamed_slots or self._image_cache is not None:
            return False
        images = {request.image for request in requests if len(request.prompt) == 1}
        return len(images) == len(requests) == len(self.images)

    def prompt_keys_values(self, prompts: Sequence[ImagePrompt], length: int) -> KVCache:
        """Keys and values of prompts of 1 to ``length`` ids, each behind its image, by layer.

        Padding comes last, so no real id attends to it.
        """
        tree = PromptTree.of(prompts, length, self.device)
        queries, decoder = self.images.shape[1], self.decoder
        own = torch.arange(length, device=self.device)
        seen = torch.cat((own.new_ones(length, queries) > 0, own <= own[:, None]), dim=1)
        positions = queries + tree.positions
        hidden = decoder.place(decoder.embed_tokens(tree.ids), positions)
        mask, rotation = additive_mask(seen, hidden.dtype), decoder.rotation(positions)
        nodes, places = tree.nodes, tree.places
        cache = self.new_cache(*nodes.shape)
        for number, layer in enumerate(decoder.layers):
            hidden, mask, nodes, places = layer.receive(hidden, mask, nodes, places)
            query, pair = (each.flatten(0, 1)[nodes] for each in layer.project(hidden, rotation))
            projected = heads_first(query, pair)
            cache.append(projected[1:])
            if number == len(decoder.layers) - 1:
                break  # nobody reads the states of prompts
            ((query, key, value),) = prepend([(tree.images, self.image_cache[number])], [projected])
            attended = attend(layer, query, key, value, mask).flatten(0, 1)[places]
            hidden = layer.finish(hidden, attended.unflatten(0, hidden.shape[:2]))
        return cache

    def padded_length(self, prompt_length: int, length: int) -> int:
        # Together with what ``continuation_states`` runs of the prompt, a multiple of the step.
        unread = prompt_length - (prompt_length - 1) // PROMPT_STEP * PROMPT_STEP
        return round_up(unread + length, PROMPT_STEP) - unread

    def continuation_states(
        self, prompts: Sequence[ImagePrompt], rows: Tensor, tokens: Tensor
    ) -> Tensor:
        device, queries = self.images.device, self.images.shape[1]
        packed = to_device([(image, *ids) for image, ids in prompts], device)
        images, prompt_ids = packed[:, 0], packed[:, 1:]
        length = prompt_ids.shape[1]
        prefix_length = (
            (length - 1) // PROMPT_STEP * PROMPT_STEP
        )  # the rest is run with the continuations
        context = [(images[rows], self.image_cache)]
        if prefix_length:
            known, prefix = self._prefix_cache
            if prefix is None or known != list(prompts):
                beginnings = [(image, ids[:prefix_length]) for image, ids in prompts]
                prefix = self.prompt_keys_values(beginnings, prefix_length)
                self._prefix_cache = list(prompts), prefix
            context.append((rows, prefix))
        ids = torch.cat((prompt_ids[rows, prefix_length:], tokens), dim=1)
        ids = pad(ids, (0, -ids.shape[1] % PROMPT_STEP))
        own = torch.arange(ids.shape[1], device=device)
        seen = torch.cat(
            (own.new_ones(len(own), queries + prefix_length) > 0, own <= own[:, None]), dim=1
        )
        positions = queries + prefix_length + own
        hidden = self.decoder.place(self.decoder.embed_tokens(ids), positions)
        hidden = self.run(hidden, positions, seen, context)
        first = length - 1 - prefix_length
        return hidden[:, first : first + 1 + tokens.shape[1]]

    def run(
        self,
        hidden: Tensor,
        positions: Tensor,
        seen: Tensor,
        context: Sequence[tuple[Tensor, KVCache]] = (),
        cache: CacheSink | None = None,
    ) -> Tensor:
        """Hidden states [R, T, D] of ``positions`` [T] through all layers.

        ``context`` are the pieces in front, which follow one another: which rows of which cache.
        Rows are taken a layer at a time: those of all layers would be gigabytes. With ``cache`` the
        keys and values of each layer are appended to it, and the last layer stops there: nobody
        reads its states.
        """
        mask = additive_mask(seen, hidden.dtype)
        layers, rotation = self.decoder.layers, self.decoder.rotation(positions)
        groups = split_sequences(hidden, layers[0].gemm)
        for number, layer in enumerate(layers):
            mask, *groups = layer.receive(mask, *groups)
            projected = [project(layer, group, rotation) for group in groups]
            if cache is not None:
                keys = merge_sequences([key for _, key, _ in projected])
                values = merge_sequences([value for _, _, value in projected])
                cache.append((keys, values))
                if number == len(layers) - 1:
                    break
            if context:
                projected = prepend([(rows, each[number]) for rows, each in context], projected)
            groups = [
                layer.finish(group, attend(layer, query, key, value, mask))
                for group, (query, key, value) in zip(groups, projected, strict=True)
            ]
        return merge_sequences(groups).to(self.device)

    def logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(self.decoder.leave(hidden))
        return logits


def open_session(model: Any, features: ImageFeatures) -> OptSession:
    """The language model of ``model`` (a ``GenerationModel``) with the images of one batch."""
    placeholder = model.config.image_token_index
    if placeholder is None or placeholder < 0:
        placeholder = model.config.text_config.vocab_size  # an id that no rule touches
    return OptSession(model.language_model, features.language_inputs, placeholder)
