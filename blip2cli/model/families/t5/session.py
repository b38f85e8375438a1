"""T5 as BLIP-2 reads with it: the encoder reads [image features][prompt], the decoder writes.

The arithmetic is that of transformers' ``T5ForConditionalGeneration`` with eager attention
(``modeling_t5.py``); the weights are in ``nets/t5.py``, the schedule is here. The encoder sees in
both directions, so nothing but the image's features can be shared by the prompts of an image;
prompts are never padded, because that would move T5's relative positions.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from blip2cli.model.decoding.kv_buffers import Room
from blip2cli.model.decoding.scheduler import Pair, Request, Shape, round_up, take_ahead
from blip2cli.model.families.t5.net import attend

READ_STEP = 16
ROOM_STEP = 8
LENGTH_STEP = 4
AHEAD = 64  # images with prompts that are encoded together, before their turn


class T5Reader:
    """T5 with the images of one batch, [B, Q, D] as its encoder reads them."""

    def __init__(self, language: Any, images: Tensor) -> None:
        self.language = language
        self.images = images
        start = language.config.decoder_start_token_id
        if start is None:
            start = language.config.pad_token_id or 0  # T5 starts from its padding
        self.start = int(start)
        self._expected: dict[Pair, None] = {}
        self._ahead: dict[Pair, Tensor] = {}

    @property
    def device(self) -> torch.device:
        """Where it runs."""
        return self.images.device

    @property
    def at_once(self) -> int:
        """How many texts a step takes in one product; 0: any number."""
        rows: int = self.language.lm_head.sequences_per_gemm(1)
        return rows

    def shape(self, request: Request) -> Shape:
        """Rounded up, so that texts of almost one length share slots."""
        read = self.images.shape[1] + len(request.prompt)
        return Shape(round_up(read, READ_STEP), round_up(request.room, ROOM_STEP))

    def history(self, request: Request) -> tuple[int, ...]:
        """transformers counts the decoder's start token alone."""
        return (self.start,)

    def expect(self, pairs: Sequence[Pair]) -> None:
        """Slots are filled a few at a time, and prompts of one length are few among those."""
        self._expected = dict.fromkeys(pairs)
        self._ahead = {}

    def states(self, pairs: Sequence[Pair]) -> list[Tensor]:
        """What ``encode`` gives; together with pairs that are expected next."""
        missing = [pair for pair in pairs if pair not in self._ahead]
        if missing:
            kept = {pair: self._ahead[pair] for pair in pairs if pair in self._ahead}
            wanted = take_ahead(missing, self._expected, AHEAD)
            self._ahead = kept | dict(zip(wanted, self.encode(wanted), strict=True))
        return [self._ahead[pair] for pair in pairs]

    def open(self, shape: Shape, slots: int) -> T5Slots:
        """Empty slots."""
        return T5Slots(self, shape, slots)

    def encode(self, pairs: Sequence[Pair]) -> list[Tensor]:
        """Encoder states [Q + T, D] of images with prompts, those of equal length together."""
        lengths: dict[int, list[int]] = defaultdict(list)
        for number, (_, prompt) in enumerate(pairs):
            lengths[len(prompt)].append(number)
        found: list[Tensor] = [self.images] * len(pairs)
        for members in lengths.values():
            rows = [pairs[number][0] for number in members]
            ids = torch.tensor([pairs[n][1] for n in members], device=self.images.device)
            embedded = self.language.shared(ids)
            embeds = torch.cat((self.images[rows].to(embedded.dtype), embedded), dim=1)
            states = self.language.encoder(embeds)
            for number, state in zip(members, states, strict=True):
                found[number] = state
        return found

    def padded(self, prompt: int, tokens: int) -> int:
        """``follow`` puts the start token before them."""
        return round_up(1 + tokens, LENGTH_STEP) - 1

    def follow(self, pairs: Sequence[Pair], which: Tensor, tokens: Tensor) -> Tensor:
        """Hidden states [N, T + 1, D] before the first and after each of tokens [N, T].

        ``pairs`` are images with prompts of one length; ``which`` [N] says whose continuation
        each row is.
        """
        start = tokens.new_full((len(tokens), 1), self.start)
        ids = torch.cat((start, tokens), dim=1)
        # Two measures for equal bits. The keys of a single row lie apart in memory, those of
        # several side by side, and where a row's scores begin depends on the length: of few
        # positions such products are computed in unlike orders.
        ids = torch.nn.functional.pad(ids, (0, -ids.shape[1] % LENGTH_STEP))
        alone = len(ids) == 1
        written = self.language.decoder(
            self.language.shared(ids.repeat(2, 1) if alone else ids),
            torch.stack(self.states(pairs)),
            which.repeat(2) if alone else which,
        )
        states: Tensor = written[: len(ids), : 1 + tokens.shape[1]]
        return states

    def scores(self, hidden: Tensor) -> Tensor:
        """Hidden states of the last layer to raw scores over the vocabulary."""
        if self.language.config.scales_output:
            hidden = hidden * (self.language.config.d_model**-0.5)
        scores: Tensor = self.language.lm_head(hidden)
        return scores


class T5Slots:
    """Keys and values of S texts by layer, [S, heads, positions, head size]: the decoder's own,
    and those of what its encoder read."""

    def __init__(self, reader: T5Reader, shape: Shape, slots: int) -> None:
        self.reader = reader
        self.shape = shape
        language = reader.language
        self.decoder = language.decoder
        config, device = language.config, reader.images.device
        kind = language.shared.weight.dtype

        def room(positions: int) -> list[Tensor]:
            size = (slots, config.num_heads, positions, config.d_kv)
            return [torch.zeros(size, dtype=kind, device=device) for _ in self.decoder.block]

        self.keys, self.values = room(shape.capacity), room(shape.capacity)
        self.read_keys, self.read_values = room(shape.read), room(shape.read)
        # Encoder states of each slot, and what is written of its text.
        self._read = [torch.ones(slots, dtype=torch.long, device=device)]
        self._used = [torch.zeros(slots, dtype=torch.long, device=device)]
        self.room = Room(
            self.keys, self.values, self.read_keys, self.read_values, self._used, self._read
        )
        # [heads, position, position seen]
        self.bias = self.decoder.bias(shape.capacity)

    @property
    def used(self) -> Tensor:
        """How many positions of each slot's text are written, [S]."""
        return self._used[0]

    @property
    def read(self) -> Tensor:
        """How many encoder states each slot looks at, [S]."""
        return self._read[0]

    def narrow(self, count: int) -> None:
        """Use the first ``count`` slots."""
        self.room.narrow(count)

    def reopen(self, reader: T5Reader, count: int) -> None:
        """Be as new, with ``count`` slots, for another batch's images."""
        self.reader = reader
        self.room.clear()
        self.room.narrow(count)
        self.read.fill_(1)

    def close(self) -> None:
        """Forget the images; only ``reopen`` may follow."""
        del self.reader

    def fill(self, slots: Sequence[int], requests: Sequence[Request]) -> list[int]:
        """Encode images and prompts, each pair once; texts begin with the start token."""
        pairs = [(request.image, request.prompt) for request in requests]
        once = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
        states = self.reader.states(list(once))
        places: dict[int, list[int]] = defaultdict(list)
        for slot, pair in zip(slots, pairs, strict=True):
            places[once[pair]].append(slot)
        lengths: dict[int, list[int]] = defaultdict(list)
        for number, state in enumerate(states):
            lengths[len(state)].append(number)
        for length, members in lengths.items():
            joined = torch.stack([states[number] for number in members])
            device = joined.device
            into = torch.tensor([s for n in members for s in places[n]], device=device)
            repeated = [i for i, number in enumerate(members) for _ in places[number]]
            origin = torch.tensor(repeated, device=device)
            for number, block in enumerate(self.decoder.block):
                key, value = block.layer[1].EncDecAttention.split_heads(joined, "k", "v")
                self.read_keys[number][into, :, :length] = key[origin]
                self.read_values[number][into, :, :length] = value[origin]
            self.read[into] = length
            self.used[into] = 0
        return [self.reader.start] * len(slots)

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token a slot, [S]; return the next token's raw scores, [S, V]."""
        used = self.used
        slots = torch.arange(len(used), device=used.device)
        unseen = torch.arange(self.shape.capacity, device=used.device) > used[:, None]
        missing = torch.arange(self.shape.read, device=used.device) >= self.read[:, None]
        bias = self.bias[:, used].transpose(0, 1)[:, :, None]  # [S, heads, 1, capacity]
        bias = bias.masked_fill(unseen[:, None, None], -torch.inf)
        there = bias.new_zeros(missing.shape).masked_fill_(missing, -torch.inf)[:, None, None]
        hidden: Tensor = self.reader.language.shared(tokens.to(used.device))[:, None]
        for number, block in enumerate(self.decoder.block):
            own, crossing, forward = block.layer
            attention = own.SelfAttention
            query, key, value = attention.split_heads(own.layer_norm(hidden), "q", "k", "v")
            keys, values = self.keys[number], self.values[number]
            keys[slots, :, used] = key[:, :, 0]
            values[slots, :, used] = value[:, :, 0]
            hidden = attention.o(attend(query, keys, values, bias), hidden)
            attention = crossing.EncDecAttention
            (query,) = attention.split_heads(crossing.layer_norm(hidden), "q")
            read = self.read_keys[number], self.read_values[number]
            hidden = forward(attention.o(attend(query, *read, there), hidden))
        # A slot without a text goes on as well; it must not run out of its room.
        used.add_(1).clamp_(max=self.shape.capacity - 1)
        return self.reader.scores(self.decoder.final_layer_norm(hidden[:, 0]))

    def move(self, into: Sequence[int], origin: Sequence[int]) -> None:
        """Copy what was written since filling from slots to others, all at once."""
        places = torch.tensor((into, origin), device=self.used.device)
        since = slice(int(self.used[places[0]].max()))
        for kept in (*self.keys, *self.values):
            kept[places[0], :, since] = kept[places[1], :, since]

    def keep(self, slots: Sequence[int]) -> None:
        """Keep only these slots, in this order."""
        self.room.keep(slots)
