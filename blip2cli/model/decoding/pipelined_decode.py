"""Pipelined decoding on a GPU: the host reads tokens one step behind the device.

Where a step runs on a device of its own, asking for its token lets the device stand idle until the
host has seen it and launched the next step. Here the next token is chosen on the device and goes
into the next step at once; meanwhile the host reads what the step before it chose. The end of a
sequence is noticed one step behind, and the token that was appended to it is dropped. A sequence
that reaches its limit is known to end without looking, so its slot is free at once.

Each row is computed from its own sequence only, so the tokens are those of ``Scheduler``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from blip2cli.model.decoding.readback import Readback
from blip2cli.model.decoding.scheduler import Scheduler

DEVICES = frozenset({"cuda"})  # on a CPU there is nothing to overlap


def is_pipelined(device: torch.device, greedy: bool) -> bool:
    """Whether sequences are decoded by ``PipelinedScheduler``.

    ``greedy``: the next token is always the best by the raw logits.
    """
    return greedy and device.type in DEVICES


@dataclass(frozen=True)
class _Step:
    """A step that was launched."""

    owner: tuple[int | None, ...]  # the request whose sequence each slot held
    chosen: Readback  # tokens [S] and their log-probabilities [S]


class PipelinedScheduler(Scheduler):
    """Decodes the requests of one slot shape greedily, choosing tokens on the device."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        assert self.processors is None
        self.next = torch.zeros(len(self.owner), dtype=torch.long, device=self.session.device)
        self.launched: dict[int, int] = defaultdict(int)  # tokens of each sequence, read or not
        self.ended: set[int] = set()

    def run(self) -> None:
        """Decode until no request waits and no sequence is in progress."""
        self._refill()
        before: _Step | None = None
        while True:
            step = self._launch() if self._running() else None
            if before is not None:
                self._read(before)
            elif step is None:
                return
            before = step
            self._refill()
            self._shrink()

    def _launch(self) -> _Step:
        """Launch a step that appends a token to every slot and chooses the next."""
        logits = self.slots.decode_step(self.next).float()
        self.next = logits.argmax(dim=-1)
        logprobs = logits.log_softmax(dim=-1).gather(1, self.next[:, None])[:, 0]
        step = _Step(tuple(self.owner), Readback(self.next, logprobs))
        for slot, number in enumerate(step.owner):
            if number is not None:
                self.launched[number] += 1
                if self.launched[number] >= self.requests[number].max_tokens:
                    self.owner[slot] = None
        return step

    def _read(self, step: _Step) -> None:
        """Append what a step chose to the sequences."""
        tokens, logprobs = step.chosen.values()
        for number, token, logprob in zip(step.owner, tokens, logprobs, strict=True):
            if number is None or number in self.ended:
                continue
            sequence = self.sequences[number]
            sequence.tokens.append(token)
            sequence.logprobs.append(logprob)
            if token in self.end:
                self.ended.add(number)
                if number in self.owner:
                    self.owner[self.owner.index(number)] = None

    def _set_tokens(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        both = torch.tensor((slots, tokens), device=self.next.device)
        # Not in place: what was chosen is still being read.
        self.next = self.next.index_copy(0, both[0], both[1])

    def _compact(self, order: Sequence[int]) -> None:
        super()._compact(order)
        self.next = self.next[torch.tensor(order, device=self.next.device)]
