"""Continuous batching: sequences in KV slots, where waiting requests take the slots that get free.

Every decode step is fed one token a slot and gives the logits of the next, which is appended to the
slot's sequence. A sequence that ends leaves at once and the next request is prefilled into its
slot, so a batch never waits for its longest sequence (the iteration-level scheduling of Orca, OSDI
2022).

Decoding is batch-invariant: a row's bits never depend on its neighbours. A slot attends over a
length that its own request decides (see ``DecoderSession.slot_shape``), linear layers see to it
that the number of rows does not matter (see ``layers/linear``), attention is plain matrix products,
and each sampled sequence draws from a generator of its own.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from blip2cli.model.decoding.kv_slots import SlotShape
from blip2cli.model.decoding.logits_rules import History, Rule
from blip2cli.model.decoding.requests import DecodeRequest, GeneratedTokens
from blip2cli.model.decoding.sampling import draw, uniform_numbers
from blip2cli.model.decoding.session import DecoderSession, round_up
from blip2cli.model.grouping import grouped
from blip2cli.model.layers.linear import ROW_MULTIPLE

MAX_SLOTS = 64  # but where layers are streamed, or a session has a limit of its own
REFILL_DIVISOR = 8  # prefill when an eighth of all slots is free, or as many as requests wait


@torch.inference_mode()
def decode(
    session: DecoderSession,
    requests: Sequence[DecodeRequest],
    end: Sequence[int],
    rule: Rule | None,
    scheduler_class: type[Scheduler],
) -> list[GeneratedTokens]:
    """Decode all requests; the sequences are in their order.

    ``end`` are the tokens that end a sequence. ``rule`` None: the raw logits decide.
    """
    sequences = [GeneratedTokens() for _ in requests]
    for shape, indices in grouped(map(session.slot_shape, requests)):
        session.will_prefill([requests[n].image_prompt for n in indices])
        # Held by nothing afterwards: slots of the next shape may lie in the same memory.
        scheduler_class(session, shape, requests, indices, sequences, frozenset(end), rule).run()
    session.forget_announced()
    return sequences


class Scheduler:
    """Decodes the requests of one slot shape, choosing tokens on the host."""

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
        """``indices`` are those of the requests to decode; ``sequences`` has one for each of
        ``requests``."""
        count = min(max_slots(session), round_up(len(indices), ROW_MULTIPLE))
        self.session = session
        self.slots = session.open_slots(shape, count)
        # The index of the request whose sequence a slot holds; None: a free slot.
        self.request_of_slot: list[int | None] = [None] * count
        self.tokens = [0] * count  # that the next step is fed
        self.waiting = deque(indices)
        self.requests = requests
        self.sequences = sequences
        self.end = end
        self.rule = rule

    def run(self) -> None:
        """Decode until no request waits and no sequence is in progress."""
        self._refill()
        while running := self._running():
            logits = self.slots.decode_step(torch.tensor(self.tokens))
            rows = logits if len(running) == len(self.request_of_slot) else logits[running]
            self._append(running, *self._choose(running, rows.float()))
            self._refill()
            self._shrink()

    def _running(self) -> list[int]:
        """Slots that hold a sequence in progress."""
        return [slot for slot, index in enumerate(self.request_of_slot) if index is not None]

    def _refill(self) -> None:
        """Prefill waiting requests into free slots, once enough are free."""
        free = [slot for slot, index in enumerate(self.request_of_slot) if index is None]
        enough = max(1, len(self.request_of_slot) // REFILL_DIVISOR)
        if not self.waiting or len(free) < min(enough, len(self.waiting)):
            return
        indices = [self.waiting.popleft() for _ in free[: len(self.waiting)]]
        slots = free[: len(indices)]
        tokens = self.slots.prefill(slots, [self.requests[n] for n in indices])
        for slot, index in zip(slots, indices, strict=True):
            self.request_of_slot[slot] = index
        self._set_tokens(slots, tokens)

    def _set_tokens(self, slots: Sequence[int], tokens: Sequence[int]) -> None:
        """Feed these slots with these tokens at the next step."""
        for slot, token in zip(slots, tokens, strict=True):
            self.tokens[slot] = token

    def _shrink(self) -> None:
        """Drop empty slots when no request waits.

        On a CPU a step takes the longer the more rows it has: as many are dropped as can be. On a
        GPU a few rows take about as long as many, and steps are captured for few numbers of slots:
        they are dropped once half of all are empty.
        """
        running = self._running()
        count, slots = round_up(len(running), ROW_MULTIPLE), len(self.request_of_slot)
        drops = count < slots if self.session.device.type == "cpu" else 2 * count <= slots
        if self.waiting or not running or not drops:
            return
        # Sequences in slots that stay are not moved.
        order = list(range(count))
        free = iter([slot for slot in order if self.request_of_slot[slot] is None])
        for slot in running:
            if slot >= count:
                order[next(free)] = slot
        self._compact(order)

    def _compact(self, order: Sequence[int]) -> None:
        """Go on with only these slots, in this order."""
        self.slots.compact(order)
        self.request_of_slot = [self.request_of_slot[slot] for slot in order]
        self.tokens = [self.tokens[slot] for slot in order]

    def _choose(self, running: Sequence[int], raw_logits: Tensor) -> tuple[list[int], list[float]]:
        """The next token of each running slot from raw logits [R, V], and its log-probability
        under the raw distribution."""
        requests = [self.requests[self._request_in(slot)] for slot in running]
        logits = raw_logits
        if self.rule is not None:
            inputs = [self.session.input_ids(request) for request in requests]
            tokens = [self.sequences[self._request_in(slot)].tokens for slot in running]
            logits = self.rule(History.of(inputs, tokens, raw_logits.device), raw_logits)
        generators = [each.generator for each in requests if each.generator is not None]
        assert len(generators) in (0, len(requests))  # all sequences are sampled, or none
        if generators:
            chosen = draw(logits, uniform_numbers(generators)[:, 0])
        else:
            chosen = logits.argmax(dim=-1)
        logprobs = raw_logits.log_softmax(dim=-1).gather(1, chosen[:, None])[:, 0]
        return chosen.tolist(), logprobs.tolist()

    def _append(self, running: Sequence[int], chosen: list[int], logprobs: list[float]) -> None:
        """Append the chosen tokens to their sequences; free the slots of those that end."""
        for slot, token, logprob in zip(running, chosen, logprobs, strict=True):
            index = self._request_in(slot)
            sequence = self.sequences[index]
            sequence.tokens.append(token)
            sequence.logprobs.append(logprob)
            # The same test: in two halves in ``PipelinedScheduler``, and in ``beam``.
            if token in self.end or len(sequence.tokens) >= self.requests[index].max_tokens:
                self.request_of_slot[slot] = None
            self.tokens[slot] = token

    def _request_in(self, slot: int) -> int:
        """The index of the request whose sequence a running slot holds."""
        index = self.request_of_slot[slot]
        assert index is not None
        return index


def max_slots(session: DecoderSession) -> int:
    """How many sequences are decoded together at most."""
    return session.streamed_slots or session.slot_limit or MAX_SLOTS
