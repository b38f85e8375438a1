"""Choice of the next tokens on the device itself, by rules and by drawing.

The host learns what was chosen a step later (see ``pipelined_decode``), so what rules look at, the
ids so far, is kept on the device, and so are the uniform numbers of all draws to come. Each
sequence has those of its own generator, in the order in which a CPU draws them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from blip2cli.model.decoding.async_copy import send, to_device
from blip2cli.model.decoding.logits_rules import History, Rule
from blip2cli.model.decoding.requests import DecodeRequest
from blip2cli.model.decoding.sampling import draw, uniform_numbers


class DeviceChoice:
    """Chooses the next token of each of S slots on their device."""

    def __init__(
        self,
        slots: int,
        requests: Sequence[DecodeRequest],
        input_ids: Callable[[DecodeRequest], tuple[int, ...]],
        rule: Rule | None,
        device: torch.device,
    ) -> None:
        """``requests`` are all that the slots will be filled with; ``input_ids`` gives the ids
        before the first new token of one."""
        self._input_ids, self._rule = input_ids, rule
        self._tokens = max(request.max_tokens for request in requests)
        self._width = max(len(input_ids(request)) for request in requests) + self._tokens
        # Packed histories, [S, width + 2]
        self._rows = torch.zeros((slots, self._width + 2), dtype=torch.long, device=device)
        self._uniform: Tensor | None = None  # [S, tokens]
        if requests[0].generator is not None:  # all sequences are sampled, or none
            shape = (slots, self._tokens)
            self._uniform = torch.zeros(shape, dtype=torch.float64, device=device)

    def fill(self, slots: Tensor, requests: Sequence[DecodeRequest]) -> None:
        """Begin with these requests in ``slots``, on the device."""
        rows = []
        for request in requests:
            ids = self._input_ids(request)
            rows.append((*ids, *(0,) * (self._width - len(ids)), len(ids), 0))
        self._rows.index_copy_(0, slots, to_device(rows, slots.device))
        if self._uniform is not None:
            generators = [each.generator for each in requests if each.generator is not None]
            numbers = send(uniform_numbers(generators, self._tokens), slots.device)
            self._uniform.index_copy_(0, slots, numbers)

    def compact(self, order: Tensor) -> None:
        """Keep only these slots, in this order."""
        self._rows = self._rows[order]
        if self._uniform is not None:
            self._uniform = self._uniform[order]

    def choose(self, logits: Tensor) -> Tensor:
        """The next tokens [S] from raw logits [S, V], which belong to the histories from now on."""
        history = History.packed(self._rows)
        scores = logits if self._rule is None else self._rule(history, logits)
        # A sequence that has ended goes on until the host has noticed, and an empty slot always.
        if self._uniform is None:
            chosen = scores.argmax(dim=-1)
        else:
            place = history.new.clamp(max=self._tokens - 1)
            chosen = draw(scores, self._uniform.gather(1, place[:, None])[:, 0])
        behind = history.lengths.clamp(max=self._width - 1)
        history.ids.scatter_(1, behind[:, None], chosen[:, None])
        self._rows[:, -2:].add_(1)
        return chosen
