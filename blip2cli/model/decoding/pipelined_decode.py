"""Pipelined decoding on a GPU: the host reads tokens one step behind the device (``before`` in
``PipelinedScheduler.run``).

Where a step runs on a device of its own, asking for its token lets the device stand idle until the
host has seen it and launched the next step. Here the next token is chosen on the device, by rules
and by drawing too (see ``device_choice``), and goes into the next step at once; meanwhile the host
reads what the step before it chose. The end of a sequence is noticed one step behind, and the token
that was chosen behind it is dropped. A sequence that reaches its limit is known to end without
looking, so its slot is free at once.

Each row is computed from its own sequence only, so the tokens are those of ``Scheduler``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from blip2cli.model.decoding.async_copy import AsyncCopy, to_device
from blip2cli.model.decoding.device_choice import DeviceChoice
from blip2cli.model.decoding.kv_slots import SlotShape
from blip2cli.model.decoding.logits_rules import Rule
from blip2cli.model.decoding.requests import DecodeRequest, GeneratedTokens
from blip2cli.model.decoding.scheduler import Scheduler
from blip2cli.model.decoding.session import DecoderSession

PIPELINED_DEVICES = frozenset({"cuda"})  # by type; on a CPU there is nothing to overlap


@dataclass(frozen=True)
class _Step:
    """A step that was launched."""

    request_of_slot: tuple[int | None, ...]  # as it was then
    chosen: AsyncCopy  # tokens [S] and their log-probabilities [S]


class PipelinedScheduler(Scheduler):
    """Decodes the requests of one slot shape, choosing tokens on the device."""

    def __init__(
        self,
        session: DecoderSession,
        shape: SlotShape,
        requests: Sequence[DecodeRequest],
        indices: Sequence[int],
        sequences: list[GeneratedTokens],
        end: frozenset[int],
        rule: Rule | None,
    ) -> None:
        super().__init__(session, shape, requests, indices, sequences, end, rule)
        slots, ours = len(self.request_of_slot), [requests[index] for index in indices]
        # Those that the next step is fed, on the device, [S].
        self.next_tokens = torch.zeros(slots, dtype=torch.long, device=session.device)
        self.choice: DeviceChoice | None = None  # None: always the best by the raw logits
        if rule is not None or ours[0].generator is not None:
            self.choice = DeviceChoice(slots, ours, session.input_ids, rule, session.device)
        # By the index of a request: tokens that were launched, collected or not.
        self.launched: dict[int, int] = defaultdict(int)
        self.ended: set[int] = set()  # indices of requests

    def run(self) -> None:
        """Decode until no request waits and no sequence is in progress."""
        self._refill()
        before: _Step | None = None
        while True:
            step = self._launch() if self._running() else None
            if before is not None:
                self._collect(before)
            elif step is None:
                return
            before = step
            self._refill()
            self._shrink()

    def _launch(self) -> _Step:
        """Launch a step that is fed a token a slot and chooses the next."""
        logits = self.slots.decode_step(self.next_tokens).float()
        if self.choice is None:
            self.next_tokens = logits.argmax(dim=-1)
        else:
            self.next_tokens = self.choice.choose(logits)
        logprobs = logits.log_softmax(dim=-1).gather(1, self.next_tokens[:, None])[:, 0]
        step = _Step(tuple(self.request_of_slot), AsyncCopy(self.next_tokens, logprobs))
        for slot, index in enumerate(step.request_of_slot):
            if index is not None:
                self.launched[index] += 1
                if self.launched[index] >= self.requests[index].max_tokens:
                    self.request_of_slot[slot] = None
        return step

    def _collect(self, step: _Step) -> None:
        """Wait for what a step chose, and append it to the sequences."""
        tokens, logprobs = step.chosen.values()
        for index, token, logprob in zip(step.request_of_slot, tokens, logprobs, strict=True):
            if index is None or index in self.ended:
                continue
            sequence = self.sequences[index]
            sequence.tokens.append(token)
            sequence.logprobs.append(logprob)
            if token in self.end:
                self.ended.add(index)
                if index in self.request_of_slot:
                    self.request_of_slot[self.request_of_slot.index(index)] = None

    def _set_tokens(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        places, fed = to_device((slots, tokens), self.next_tokens.device).unbind()
        # Not in place: what was chosen is still being read.
        self.next_tokens = self.next_tokens.index_copy(0, places, fed)
        if self.choice is not None:
            self.choice.fill(places, [self.requests[self._request_in(slot)] for slot in slots])

    def _compact(self, order: Sequence[int]) -> None:
        super()._compact(order)
        places = to_device(order, self.next_tokens.device)
        self.next_tokens = self.next_tokens[places]
        if self.choice is not None:
            self.choice.compact(places)
