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

from blip2cli.model.decoding.async_copy import to_device
from blip2cli.model.decoding.kv_cache import KeyValue, KVCache
from blip2cli.model.decoding.kv_slots import SlotShape
from blip2cli.model.decoding.requests import DecodeRequest, ImagePrompt
from blip2cli.model.decoding.session import round_up, with_announced
from blip2cli.model.decoding.slot_arena import Allocate
from blip2cli.model.families.opt.kv_slots import OptSlots
from blip2cli.model.families.opt.layer import attend, behind_context, heads_first, project
from blip2cli.model.families.opt.token_tree import TokenTree
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
        """Run the images, and give ``cache`` the keys and values of each layer.

        The last layer stops there: nobody reads its states.
        """
        positions = torch.arange(self.images.shape[1], device=self.device)
        hidden = self.decoder.place(self.images, positions)
        mask = additive_mask(positions <= positions[:, None], hidden.dtype)
        layers, rotation = self.decoder.layers, self.decoder.rotation(positions)
        groups = split_sequences(hidden, layers[0].gemm)
        for number, layer in enumerate(layers):
            mask, *groups = layer.receive(mask, *groups)
            projected = [project(layer, group, rotation) for group in groups]
            keys = merge_sequences([key for _, key, _ in projected])
            values = merge_sequences([value for _, _, value in projected])
            cache.append((keys, values))
            if number < len(layers) - 1:
                groups = [
                    layer.finish(group, attend(layer, query, key, value, mask))
                    for group, (query, key, value) in zip(groups, projected, strict=True)
                ]

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
        tree = TokenTree.of(prompts, length, self.device)
        cache = self.new_cache(*tree.nodes.shape)
        self.run_tree(tree, [(tree.follows, self.image_cache)], cache)
        return cache

    def padded_length(self, prompt_length: int, length: int) -> int:
        # Together with what ``continuation_states`` runs of the prompt, a multiple of the step.
        unread = prompt_length - (prompt_length - 1) // PROMPT_STEP * PROMPT_STEP
        return round_up(unread + length, PROMPT_STEP) - unread

    def continuation_states(
        self,
        prompts: Sequence[ImagePrompt],
        rows: Sequence[int],
        continuations: Sequence[Sequence[int]],
        length: int,
    ) -> Tensor:
        # The last ids of a prompt are run with what follows it.
        known = (len(prompts[0][1]) - 1) // PROMPT_STEP * PROMPT_STEP
        unread = len(prompts[0][1]) - known
        sequences = [
            (row, (*prompts[row][1][known:], *ids))
            for row, ids in zip(rows, continuations, strict=True)
        ]
        tree = TokenTree.of(sequences, round_up(unread + length, PROMPT_STEP), self.device)
        images = to_device([image for image, _ in prompts], self.device)
        context = [(images[tree.follows], self.image_cache)]
        if known:
            context.append((tree.follows, self._prefixes(prompts, known)))
        states = self.run_tree(tree, context).flatten(0, 1)
        return states[tree.nodes[:, unread - 1 : unread + length]]

    def _prefixes(self, prompts: Sequence[ImagePrompt], length: int) -> KVCache:
        """Keys and values of the first ``length`` ids of prompts; kept until others are asked."""
        known, cache = self._prefix_cache
        if cache is None or known != list(prompts):
            cache = self.prompt_keys_values(
                [(image, ids[:length]) for image, ids in prompts], length
            )
            self._prefix_cache = list(prompts), cache
        return cache

    def run_tree(
        self,
        tree: TokenTree,
        context: Sequence[tuple[Tensor, KVCache]],
        cache: KVCache | None = None,
    ) -> Tensor:
        """Hidden states of a tree's nodes [N / 8, 8, D] through all layers.

        ``context`` are the pieces in front, which follow one another: the rows of its U sequences
        in which cache. Linear layers have a row for each node; attention has one for each position
        of each sequence, so that its bits depend on T alone. With ``cache`` the keys and values of
        each layer are appended to it, and the last layer stops there: nobody reads its states.
        """
        before = sum(each[0][0].shape[2] for _, each in context)
        own = torch.arange(tree.nodes.shape[1], device=self.device)
        seen = torch.cat((own.new_ones(len(own), before) > 0, own <= own[:, None]), dim=1)
        positions = before + tree.positions
        hidden = self.decoder.place(self.decoder.embed_tokens(tree.ids), positions)
        mask, rotation = additive_mask(seen, hidden.dtype), self.decoder.rotation(positions)
        nodes, places = tree.nodes, tree.places
        for number, layer in enumerate(self.decoder.layers):
            hidden, mask, nodes, places = layer.receive(hidden, mask, nodes, places)
            projected = (each.flatten(0, 1)[nodes] for each in layer.project(hidden, rotation))
            query, *pair = heads_first(*projected)
            if cache is not None:
                cache.append((pair[0], pair[1]))
                if number == len(self.decoder.layers) - 1:
                    break
            key, value = (
                behind_context([(rows, each[number][which]) for rows, each in context], mine)
                for which, mine in enumerate(pair)
            )
            attended = attend(layer, query, key, value, mask).flatten(0, 1)[places]
            hidden = layer.finish(hidden, attended.unflatten(0, hidden.shape[:2]))
        states: Tensor = hidden.to(self.device)
        return states

    def logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.head(self.decoder.leave(hidden))
        return logits


def open_session(model: Any, features: ImageFeatures) -> OptSession:
    """The language model of ``model`` (a ``GenerationModel``) with the images of one batch."""
    placeholder = model.config.image_token_index
    if placeholder is None or placeholder < 0:
        placeholder = model.config.text_config.vocab_size  # an id that no rule touches
    return OptSession(model.language_model, features.language_inputs, placeholder)
