"""Continuous batching: sequences in KV slots, where waiting requests take the slots that get free.

Every decode step appends one token to every slot; a sequence that ends leaves at once and the next
request is prefilled into its slot, so a batch never waits for its longest sequence (the
iteration-level scheduling of Orca, OSDI 2022).

A row's bits never depend on its neighbours: a slot attends over a length that its own request
decides (see ``DecoderSession.slot_shape``), linear layers see to it that the number of rows does
not matter (see ``layers/linear``), attention is plain matrix products, and each sampled sequence
draws from a generator of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from blip2cli.model.decoding.kv_slots import DecodeRequest, SlotShape
from blip2cli.model.decoding.sampling import GeneratedTokens, ProcessorFactory, draw, process_scores
from blip2cli.model.decoding.session import DecoderSession, round_up
from blip2cli.model.grouping import grouped
from blip2cli.model.layers.linear import ROW_MULTIPLE

MAX_SLOTS = 64  # at most
REFILL_DIVISOR = 8  # prefill when an eighth of all slots is free, or as many as requests wait


@torch.inference_mode()
def decode(
    session: DecoderSession,
    requests: Sequence[DecodeRequest],
    end: Sequence[int],
    processors: ProcessorFactory | None,
    scheduler: type[Scheduler] | None = None,
) -> list[GeneratedTokens]:
    """Decode all requests; the sequences are in their order.

    ``end`` are the tokens that end a sequence. ``processors`` None: the raw logits decide.
    """
    sequences = [GeneratedTokens() for _ in requests]
    for shape, members in grouped(map(session.slot_shape, requests)):
        session.announce([requests[n].image_prompt for n in members])
        kind = scheduler or Scheduler
        kind(session, shape, requests, members, sequences, frozenset(end), processors).run()
    session.forget_announced()
    return sequences


class Scheduler:
    """Decodes the requests of one slot shape, choosing tokens on the host."""

    def __init__(
        self,
        session: DecoderSession,
        shape: SlotShape,
        requests: Sequence[DecodeRequest],
        members: Sequence[int],
        sequences: list[GeneratedTokens],
        end: frozenset[int],
        processors: ProcessorFactory | None,
    ) -> None:
        count = min(max_slots(session), round_up(len(members), ROW_MULTIPLE))
        self.session = session
        self.slots = session.open_slots(shape, count)
        self.owner: list[int | None] = [None] * count  # the request whose sequence a slot holds
        self.tokens = [0] * count  # to be appended by the next step
        self.waiting = deque(members)
        self.requests = requests
        self.sequences = sequences
        self.end = end
        self.processors = processors

    def run(self) -> None:
        """Decode until no request waits and no sequence is in progress."""
        self._refill()
        while running := self._running():
            logits = self.slots.decode_step(torch.tensor(self.tokens))
            rows = logits if len(running) == len(self.owner) else logits[running]
            self._append(running, *self._choose(running, rows.float()))
            self._refill()
            self._shrink()

    def _running(self) -> list[int]:
        """Slots that hold a sequence in progress."""
        return [slot for slot, owner in enumerate(self.owner) if owner is not None]

    def _refill(self) -> None:
        """Prefill waiting requests into free slots, once enough are free."""
        free = [slot for slot, owner in enumerate(self.owner) if owner is None]
        enough = max(1, len(self.owner) // REFILL_DIVISOR)
        if not self.waiting or len(free) < min(enough, len(self.waiting)):
            return
        numbers = [self.waiting.popleft() for _ in free[: len(self.waiting)]]
        slots = free[: len(numbers)]
        tokens = self.slots.prefill(slots, [self.requests[n] for n in numbers])
        for slot, number in zip(slots, numbers, strict=True):
            self.owner[slot] = number
        self._set_tokens(slots, tokens)

    def _set_tokens(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        """Let the next step append these tokens to these slots."""
        for slot, token in zip(slots, tokens, strict=True):
            self.tokens[slot] = token

    def _shrink(self) -> None:
        """Drop empty slots when no request waits and half of all are empty."""
        running = self._running()
        count = round_up(len(running), ROW_MULTIPLE)
        if self.waiting or not running or 2 * count > len(self.owner):
            return
        # Sequences in slots that stay are not moved.
        order = list(range(count))
        free = iter([slot for slot in order if self.owner[slot] is None])
        for slot in running:
            if slot >= count:
                order[next(free)] = slot
        self._compact(order)

    def _compact(self, order: Sequence[int]) -> None:
        """Go on with only these slots, in this order."""
        self.slots.compact(order)
        self.owner = [self.owner[slot] for slot in order]
        self.tokens = [self.tokens[slot] for slot in order]

    def _choose(self, running: Sequence[int], raw_logits: Tensor) -> tuple[list[int], list[float]]:
        """The next token of each running slot from raw logits [R, V], and its log-probability
        under the raw distribution."""
        requests = [self.requests[self._request_in(slot)] for slot in running]
        logits = raw_logits
        if self.processors is not None:
            inputs = [self.session.input_ids(request) for request in requests]
            tokens = [self.sequences[self._request_in(slot)].tokens for slot in running]
            logits = process_scores(self.processors, inputs, tokens, raw_logits)
        generators = [each.generator for each in requests if each.generator is not None]
        chosen = draw(logits, generators) if generators else logits.argmax(dim=-1)
        logprobs = raw_logits.log_softmax(dim=-1).gather(1, chosen[:, None])[:, 0]
        return chosen.tolist(), logprobs.tolist()

    def _append(self, running: Sequence[int], chosen: list[int], logprobs: list[float]) -> None:
        """Append the chosen tokens to their sequences; free the slots of those that end."""
        for slot, token, logprob in zip(running, chosen, logprobs, strict=True):
            number = self._request_in(slot)
            sequence = self.sequences[number]
            sequence.tokens.append(token)
            sequence.logprobs.append(logprob)
            if token in self.end or len(sequence.tokens) >= self.requests[number].max_tokens:
                self.owner[slot] = None
            self.tokens[slot] = token

    def _request_in(self, slot: int) -> int:
        """The request whose sequence a running slot holds."""
        number = self.owner[slot]
        assert number is not None
        return number


def max_slots(session: DecoderSession) -> int:
    """How many sequences are decoded together at most."""
    return min(MAX_SLOTS, session.sequences_per_step or MAX_SLOTS)
