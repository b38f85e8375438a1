"""OPT as BLIP-2 reads with it: [image features][prompt], then one token a step.

The arithmetic is that of transformers' ``OPTForCausalLM`` with eager attention
(``modeling_opt.py``), module by module; the schedule is our own. The keys and values of an image
are computed once and serve all its prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from blip2cli.model.slots import Request, Shape, round_up

# Lengths are rounded up to multiples of these, so that texts of almost one length share slots.
PROMPT_STEP = 4
CAPACITY_STEP = 16


@dataclass(frozen=True)
class _Prefix:
    """Keys and values of B images, by layer: [B, heads, Q, head size]."""

    keys: list[Tensor]
    values: list[Tensor]


class OptReader:
    """OPT with the images of one batch, [B, Q, D] as the language model reads them.

    ``placeholder`` is the id that stands for an image position in the history.
    """

    def __init__(self, language: Any, images: Tensor, placeholder: int) -> None:
        self.decoder = language.model.decoder
        self.images = images.to(self.decoder.embed_tokens.weight.dtype)
        self.placeholder = placeholder
        self.head = language.lm_head
        self._prefix: _Prefix | None = None

    def shape(self, request: Request) -> Shape:
        """The last id of the prompt is read by the first step."""
        prompt = round_up(len(request.prompt) - 1, PROMPT_STEP)
        return Shape(prompt, round_up(self.images.shape[1] + prompt + request.room, CAPACITY_STEP))

    def history(self, request: Request) -> tuple[int, ...]:
        """transformers counts the image placeholders and the prompt."""
        return (self.placeholder,) * self.images.shape[1] + request.prompt

    def open(self, shape: Shape, slots: int) -> OptSlots:
        """Empty slots."""
        return OptSlots(self, shape, slots)

    @property
    def prefix(self) -> _Prefix:
        """Keys and values of the images, computed when they are first needed."""
        if self._prefix is None:
            kept = _Prefix([], [])
            length = self.images.shape[1]
            positions = torch.arange(length, device=self.images.device)
            seen = positions <= positions[:, None]
            hidden = self.place(self.images, positions)
            for number, layer in enumerate(self.decoder.layers):
                last = number == len(self.decoder.layers) - 1
                query, key, value = project(layer, hidden)
                kept.keys.append(key)
                kept.values.append(value)
                if not last:  # nobody reads what the last layer makes of an image
                    hidden = finish(layer, hidden, attend(query, key, value, seen))
            self._prefix = kept
        return self._prefix

    def place(self, embeds: Tensor, positions: Tensor) -> Tensor:
        """Add position embeddings; positions that only fill up may lie past the last one."""
        table = self.decoder.embed_positions
        last = table.num_embeddings - 1 - table.offset
        if self.decoder.project_in is not None:
            embeds = self.decoder.project_in(embeds)
        placed: Tensor = embeds + table(None, position_ids=positions.clamp(max=last))
        return placed

    def scores(self, hidden: Tensor) -> Tensor:
        """Hidden states [S, D] of the last layer to raw scores [S, V]."""
        if self.decoder.final_layer_norm is not None:
            hidden = self.decoder.final_layer_norm(hidden)
        if self.decoder.project_out is not None:
            hidden = self.decoder.project_out(hidden)
        scores: Tensor = self.head(hidden)
        return scores


class OptSlots:
    """Keys and values of S texts, by layer: [S, heads, capacity, head size]."""

    def __init__(self, reader: OptReader, shape: Shape, slots: int) -> None:
        self.reader = reader
        self.shape = shape
        prefix = reader.prefix
        self.keys = [_room(key, slots, shape.capacity) for key in prefix.keys]
        self.values = [_room(value, slots, shape.capacity) for value in prefix.values]
        self.used = torch.zeros(slots, dtype=torch.long, device=reader.images.device)
        self.written = shape.capacity  # no slot was written to before this position

    def fill(self, slots: Sequence[int], requests: Sequence[Request]) -> list[int]:
        """Read the images, and all of the prompts but the last ids, which are returned."""
        places = torch.tensor(slots, device=self.used.device)
        images = torch.tensor([r.image for r in requests], device=self.used.device)
        queries = self.reader.images.shape[1]
        for kept, own in zip(
            (*self.keys, *self.values),
            (*self.reader.prefix.keys, *self.reader.prefix.values),
            strict=True,
        ):
            kept[places, :, :queries] = own[images]
        if self.shape.read:
            self._read(places, images, requests)
        read = [queries + len(request.prompt) - 1 for request in requests]
        self.used[places] = torch.tensor(read, device=self.used.device)
        self.written = min(self.written, *read)
        return [request.prompt[-1] for request in requests]

    def _read(self, places: Tensor, images: Tensor, requests: Sequence[Request]) -> None:
        """Run the prompts, each only once, behind their images' keys and values."""
        pairs = [(request.image, request.prompt) for request in requests]
        once = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
        which = torch.tensor([once[pair] for pair in pairs], device=images.device)
        rows = torch.tensor([image for image, _ in once], device=images.device)
        length, queries = self.shape.read, self.reader.images.shape[1]
        filled = [(*prompt[:-1], *(0,) * (length + 1 - len(prompt))) for _, prompt in once]
        ids = torch.tensor(filled, device=images.device)
        own = torch.arange(length, device=images.device)
        # The image is seen by all; what fills up stands behind every real id.
        seen = torch.cat((own.new_ones(length, queries) > 0, own <= own[:, None]), dim=1)
        decoder = self.reader.decoder
        hidden = self.reader.place(decoder.embed_tokens(ids), queries + own)
        prefix = self.reader.prefix
        for number, layer in enumerate(decoder.layers):
            query, key, value = project(layer, hidden)
            self.keys[number][places, :, queries : queries + length] = key[which]
            self.values[number][places, :, queries : queries + length] = value[which]
            if number == len(decoder.layers) - 1:
                return
            keys = torch.cat((prefix.keys[number][rows], key), dim=2)
            values = torch.cat((prefix.values[number][rows], value), dim=2)
            hidden = finish(layer, hidden, attend(query, keys, values, seen))

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token a slot, [S]; return the next token's raw scores, [S, V]."""
        decoder = self.reader.decoder
        used = self.used
        slots = torch.arange(len(used), device=used.device)
        seen = torch.arange(self.shape.capacity, device=used.device) <= used[:, None]
        hidden = self.reader.place(decoder.embed_tokens(tokens.to(used.device)), used)[:, None]
        for layer, keys, values in zip(decoder.layers, self.keys, self.values, strict=True):
            query, key, value = project(layer, hidden)
            keys[slots, :, used] = key[:, :, 0]
            values[slots, :, used] = value[:, :, 0]
            hidden = finish(layer, hidden, attend(query, keys, values, seen[:, None, None]))
        # A slot without a text goes on as well; it must not run out of its room.
        self.used = (used + 1).clamp(max=self.shape.capacity - 1)
        return self.reader.scores(hidden[:, 0])

    def move(self, into: Sequence[int], origin: Sequence[int]) -> None:
        """Copy what was written since filling from slots to others, all at once."""
        since = slice(self.written, int(self.used[into].max()))
        for kept in (*self.keys, *self.values):
            kept[into, :, since] = kept[origin, :, since]

    def keep(self, slots: Tensor) -> None:
        """Keep only these slots, in this order."""
        slots = slots.to(self.used.device)
        self.keys = [key[slots] for key in self.keys]
        self.values = [value[slots] for value in self.values]
        self.used = self.used[slots]


def project(layer: Any, hidden: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Query (scaled), key and value of hidden states [R, T, D]: each [R, heads, T, head size]."""
    attention = layer.self_attn
    if layer.do_layer_norm_before:
        hidden = layer.self_attn_layer_norm(hidden)
    apart = (*hidden.shape[:2], attention.num_heads, attention.head_dim)
    query = (attention.q_proj(hidden) * attention.scaling).view(apart).transpose(1, 2)
    key = attention.k_proj(hidden).view(apart).transpose(1, 2)
    value = attention.v_proj(hidden).view(apart).transpose(1, 2)
    return query, key, value


def attend(query: Tensor, key: Tensor, value: Tensor, seen: Tensor) -> Tensor:
    """Attention by plain matrix products over the positions that are ``seen`` (broadcast)."""
    scores = (query @ key.transpose(-1, -2)).masked_fill(~seen, -torch.inf)
    shares = scores.softmax(dim=-1, dtype=torch.float32).to(query.dtype)
    return (shares @ value).transpose(1, 2).flatten(2)


def finish(layer: Any, hidden: Tensor, attended: Tensor) -> Tensor:
    """The rest of a layer, after its attention."""
    hidden = hidden + layer.self_attn.out_proj(attended)
    if not layer.do_layer_norm_before:
        hidden = layer.self_attn_layer_norm(hidden)
    inner = layer.final_layer_norm(hidden) if layer.do_layer_norm_before else hidden
    hidden = hidden + layer.fc2(layer.activation_fn(layer.fc1(inner)))
    return hidden if layer.do_layer_norm_before else layer.final_layer_norm(hidden)


def _room(like: Tensor, slots: int, capacity: int) -> Tensor:
    return like.new_zeros(slots, like.shape[1], capacity, like.shape[3])
