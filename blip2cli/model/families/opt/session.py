"""OPT as BLIP-2 reads with it: [image features][prompt], then one token a step.

What it computes is what transformers' ``OPTForCausalLM`` does. The weights are in ``nets/opt.py``,
the pieces of a layer in ``opt_layer.py``; the schedule is here. The keys and values of an image are
computed once and serve all its prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from blip2cli.model.decoding.kv_buffers import Room
from blip2cli.model.decoding.scheduler import Pair, Request, Shape, round_up, take_ahead
from blip2cli.model.families.opt.layer import Kept, attend, behind, finish, project
from blip2cli.model.layers.linear import merge_sequences, split_sequences

# Lengths are rounded up to multiples of these, so that texts of almost one length share slots. It
# also keeps the bits: where a row's scores begin at an odd place in memory, small products (heads
# of 16, up to 11 positions) are computed in another order than where they begin at an even one.
PROMPT_STEP = 4
CAPACITY_STEP = 8
AHEAD = 1024  # positions of prompts that are read together, before their turn


Layers = list[Kept]


class OptReader:
    """OPT with the images of one batch, [B, Q, D] as the language model reads them.

    ``placeholder`` is the id that stands for an image position in the history.
    """

    def __init__(self, language: Any, images: Tensor, placeholder: int) -> None:
        self.decoder = language.model.decoder
        self.images = images.to(self.decoder.embed_tokens.weight.dtype)
        self.placeholder = placeholder
        self.head = language.lm_head
        self._prefix: Layers | None = None
        self._expected: dict[Pair, None] = {}
        self._ahead: tuple[dict[Pair, int], Layers] = {}, []  # what is read, and its place
        self._begun: tuple[list[Pair], Layers] = [], []  # beginnings of the prompts last followed

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.images.device

    @property
    def at_once(self) -> int:
        """How many texts a step takes in one product; 0: any number."""
        rows: int = self.head.sequences_per_gemm(1)
        return rows

    def shape(self, request: Request) -> Shape:
        """The last id of the prompt is read by the first step."""
        prompt = round_up(len(request.prompt) - 1, PROMPT_STEP)
        return Shape(prompt, round_up(self.images.shape[1] + prompt + request.room, CAPACITY_STEP))

    def history(self, request: Request) -> tuple[int, ...]:
        """transformers counts the image placeholders and the prompt."""
        return (self.placeholder,) * self.images.shape[1] + request.prompt

    def expect(self, pairs: Sequence[Pair]) -> None:
        """Slots are filled a few at a time, and each reading takes all weights from memory."""
        self._expected = dict.fromkeys(pairs)
        self._ahead = {}, []
        self._begun = [], []

    def prompts(self, pairs: Sequence[Pair], length: int) -> tuple[list[int], Layers]:
        """Keys and values of prompts as ``read`` gives them, filled up to ``length`` ids, and
        which of them are those of ``pairs``; read together with pairs that are expected next."""
        numbers, kept = self._ahead
        if any(pair not in numbers for pair in pairs):
            wanted = take_ahead(pairs, self._expected, AHEAD // length)
            numbers = {pair: number for number, pair in enumerate(wanted)}
            filled = [(*prompt[:-1], *(0,) * (length + 1 - len(prompt))) for _, prompt in numbers]
            images = torch.tensor([image for image, _ in numbers], device=self.device)
            kept = self.read(images, torch.tensor(filled, device=self.device))
            self._ahead = numbers, kept
        return [numbers[pair] for pair in pairs], kept

    def open(self, shape: Shape, slots: int) -> OptSlots:
        """Empty slots."""
        return OptSlots(self, shape, slots)

    @property
    def prefix(self) -> Layers:
        """Keys and values of the images, computed when they are first needed."""
        if self._prefix is None:
            positions = torch.arange(self.images.shape[1], device=self.images.device)
            hidden = self.decoder.place(self.images, positions)
            kept: Layers = []
            self.run(hidden, positions <= positions[:, None], kept=kept)
            self._prefix = kept
        return self._prefix

    def read(self, images: Tensor, ids: Tensor) -> Layers:
        """Keys and values of prompt ids [U, T], each behind its image, by layer.

        What only fills up a prompt comes last, so no real id sees it.
        """
        queries = self.images.shape[1]
        own = torch.arange(ids.shape[1], device=ids.device)
        seen = torch.cat((own.new_ones(len(own), queries) > 0, own <= own[:, None]), dim=1)
        kept: Layers = []
        hidden = self.decoder.place(self.decoder.embed_tokens(ids), queries + own)
        self.run(hidden, seen, [(images, self.prefix)], kept)
        return kept

    def padded(self, prompt: int, tokens: int) -> int:
        """What ``follow`` runs of a prompt and its continuation has a step's length."""
        unread = prompt - (prompt - 1) // PROMPT_STEP * PROMPT_STEP
        return round_up(unread + tokens, PROMPT_STEP) - unread

    def follow(self, pairs: Sequence[Pair], which: Tensor, tokens: Tensor) -> Tensor:
        """Hidden states [N, T + 1, D] after the prompt and after each of tokens [N, T].

        ``pairs`` are images with prompts of one length; ``which`` [N] says whose continuation
        each row is.
        """
        device, queries = self.images.device, self.images.shape[1]
        images = torch.tensor([image for image, _ in pairs], device=device)
        prompts = torch.tensor([prompt for _, prompt in pairs], device=device)
        asked = prompts.shape[1]
        read = (asked - 1) // PROMPT_STEP * PROMPT_STEP  # the rest is run with what follows
        before = [(images[which], self.prefix)]
        if read:
            if self._begun[0] != list(pairs):
                self._begun = list(pairs), self.read(images, prompts[:, :read])
            before.append((which, self._begun[1]))
        ids = torch.cat((prompts[which, read:], tokens), dim=1)
        ids = torch.nn.functional.pad(ids, (0, -ids.shape[1] % PROMPT_STEP))
        place = torch.arange(ids.shape[1], device=device)
        there = place.new_ones(len(place), queries + read) > 0
        seen = torch.cat((there, place <= place[:, None]), dim=1)
        hidden = self.decoder.place(self.decoder.embed_tokens(ids), queries + read + place)
        hidden = self.run(hidden, seen, before)
        first = asked - 1 - read
        return hidden[:, first : first + 1 + tokens.shape[1]]

    def run(
        self,
        hidden: Tensor,
        seen: Tensor,
        before: Sequence[tuple[Tensor, Layers]] = (),
        kept: Layers | None = None,
    ) -> Tensor:
        """Hidden states [R, T, D] through all layers.

        ``before`` is what stands in front, part by part: which rows of what was kept. They are
        taken a layer at a time: those of all layers would be gigabytes. With ``kept`` the keys
        and values of each layer are put there, and the last layer does not go on: what it makes
        of them nobody reads.
        """
        layers = self.decoder.layers
        groups = split_sequences(hidden, layers[0].fc1)
        for number, layer in enumerate(layers):
            made = [project(layer, group) for group in groups]
            if kept is not None:
                kept.append(
                    (
                        merge_sequences([key for _, key, _ in made]),
                        merge_sequences([v for _, _, v in made]),
                    )
                )
                if number == len(layers) - 1:
                    break
            if before:
                stood = [(rows, all_kept[number]) for rows, all_kept in before]
                made = behind(stood, made)
            groups = [
                finish(layer, group, attend(query, key, value, seen))
                for group, (query, key, value) in zip(groups, made, strict=True)
            ]
        return merge_sequences(groups)

    def scores(self, hidden: Tensor) -> Tensor:
        """Hidden states [S, D] of the last layer to raw scores [S, V]."""
        scores: Tensor = self.head(self.decoder.leave(hidden))
        return scores


class OptSlots:
    """Keys and values of S texts, by layer: [S, heads, capacity, head size]."""

    def __init__(self, reader: OptReader, shape: Shape, slots: int) -> None:
        self.reader = reader
        self.shape = shape
        prefix = reader.prefix
        self.keys = [_room(key, slots, shape.capacity) for key, _ in prefix]
        self.values = [_room(value, slots, shape.capacity) for _, value in prefix]
        self._used = [torch.zeros(slots, dtype=torch.long, device=reader.images.device)]
        self.room = Room(self.keys, self.values, self._used)
        self.written = shape.capacity  # no slot was written to before this position

    @property
    def used(self) -> Tensor:
        """How many positions of each slot hold something, [S]."""
        return self._used[0]

    def narrow(self, count: int) -> None:
        """Use the first ``count`` slots."""
        self.room.narrow(count)

    def reopen(self, reader: OptReader, count: int) -> None:
        """Be as new, with ``count`` slots, for another batch's images."""
        self.reader = reader
        self.written = self.shape.capacity
        self.room.clear()
        self.room.narrow(count)

    def close(self) -> None:
        """Forget the images; only ``reopen`` may follow."""
        del self.reader

    def fill(self, slots: Sequence[int], requests: Sequence[Request]) -> list[int]:
        """Read the images, and all of the prompts but the last ids, which are returned."""
        places = torch.tensor(slots, device=self.used.device)
        images = torch.tensor([r.image for r in requests], device=self.used.device)
        queries = self.reader.images.shape[1]
        for number, (key, value) in enumerate(self.reader.prefix):
            self.keys[number][places, :, :queries] = key[images]
            self.values[number][places, :, :queries] = value[images]
        if self.shape.read:
            self._read(places, requests)
        read = [queries + len(request.prompt) - 1 for request in requests]
        self.used[places] = torch.tensor(read, device=self.used.device)
        self.written = min(self.written, *read)
        return [request.prompt[-1] for request in requests]

    def _read(self, places: Tensor, requests: Sequence[Request]) -> None:
        """Put keys and values of the prompts behind those of their images."""
        length, queries = self.shape.read, self.reader.images.shape[1]
        which, read = self.reader.prompts([(each.image, each.prompt) for each in requests], length)
        rows = torch.tensor(which, device=places.device)
        own = slice(queries, queries + length)
        for number, (key, value) in enumerate(read):
            self.keys[number][places, :, own] = key[rows]
            self.values[number][places, :, own] = value[rows]

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token a slot, [S]; return the next token's raw scores, [S, V]."""
        decoder = self.reader.decoder
        used = self.used
        slots = torch.arange(len(used), device=used.device)
        seen = torch.arange(self.shape.capacity, device=used.device) <= used[:, None]
        hidden = decoder.place(decoder.embed_tokens(tokens.to(used.device)), used)[:, None]
        for layer, keys, values in zip(decoder.layers, self.keys, self.values, strict=True):
            query, key, value = project(layer, hidden)
            keys[slots, :, used] = key[:, :, 0]
            values[slots, :, used] = value[:, :, 0]
            hidden = finish(layer, hidden, attend(query, keys, values, seen[:, None, None]))
        # A slot without a text goes on as well; it must not run out of its room.
        used.add_(1).clamp_(max=self.shape.capacity - 1)
        return self.reader.scores(hidden[:, 0])

    def move(self, into: Sequence[int], origin: Sequence[int]) -> None:
        """Copy what was written since filling from slots to others, all at once."""
        places = torch.tensor((into, origin), device=self.used.device)
        since = slice(self.written, int(self.used[places[0]].max()))
        for kept in (*self.keys, *self.values):
            kept[places[0], :, since] = kept[places[1], :, since]

    def keep(self, slots: Sequence[int]) -> None:
        """Keep only these slots, in this order."""
        self.room.keep(slots)


def _room(like: Tensor, slots: int, capacity: int) -> Tensor:
    return like.new_zeros(slots, like.shape[1], capacity, like.shape[3])
