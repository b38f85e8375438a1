"""Beam search in KV slots, with the results of transformers' ``generate`` on single sequences.

Each request has as many neighbouring slots as beams. Image and prompt are prefilled once
and never moved: when beams change places, only the positions decoded since are copied.

The search is that of ``GenerationMixin._beam_search`` with ``early_stopping=False``, for one
sequence at a time: of all continuations the best (1 + end tokens) x beams are candidates; those
among the first ``num_beams`` that end are finished; the best that do not end go on; and it is over
when the best beam, at its present length, is no better than the worst of ``num_beams`` finished
sequences.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from blip2cli.model.decoding import scheduler
from blip2cli.model.decoding.async_copy import AsyncCopy, to_device
from blip2cli.model.decoding.kv_slots import SlotShape
from blip2cli.model.decoding.logits_rules import History, Rule
from blip2cli.model.decoding.requests import DecodeRequest, GeneratedTokens
from blip2cli.model.decoding.session import DecoderSession, round_up
from blip2cli.model.grouping import grouped
from blip2cli.model.layers.linear import ROW_MULTIPLE
from blip2cli.options import DecodeOptions

_WORST = np.float32(-1e9)  # as in transformers: scores are float32, and this is below all of them


@torch.inference_mode()
def beam_search(
    session: DecoderSession,
    requests: Sequence[DecodeRequest],
    end: Sequence[int],
    rule: Rule | None,
    options: DecodeOptions,
) -> list[list[GeneratedTokens]]:
    """The best ``options.num_captions`` sequences of each request, best first.

    Sequences are ranked by the search's own score, the sum of processed log-probabilities over
    length to the power of the length penalty; their log-probabilities are the raw model's.
    """
    found: list[list[GeneratedTokens]] = [[] for _ in requests]
    for shape, indices in grouped(map(session.slot_shape, requests)):
        alike = [requests[index] for index in indices]
        session.will_prefill([each.image_prompt for each in alike])
        # Held by nothing afterwards: slots of the next shape may lie in the same memory.
        searched = _BeamDecoder(session, shape, alike, frozenset(end), rule, options).run()
        for index, sequences in zip(indices, searched, strict=True):
            found[index] = sequences
    session.forget_announced()
    return found


@dataclass
class _Beam:
    """A hypothesis: a sequence with its score."""

    # In progress: the sum of the processed log-probabilities. Finished: that sum over the length to
    # the power of the length penalty, by which finished sequences are ranked.
    score: np.float32
    sequence: GeneratedTokens


@dataclass
class _Candidate:
    """A continuation of a beam by one token."""

    beam: _Beam
    parent: int  # place of the continued beam among those of its search
    ends: bool  # with an end token, or because the request has no more tokens


@dataclass
class _Search:
    """The beams of one request; ``beams`` are best first."""

    request: DecodeRequest
    penalty: float
    beams: list[_Beam]
    parents: list[int] = field(default_factory=list)  # their places before the last token
    finished: list[_Beam] = field(default_factory=list)  # by score over length, best first

    def scores(self) -> list[float]:
        """The score of each beam; before the first token only one counts, as all are alike."""
        return [
            float(beam.score if beam.sequence.tokens or number == 0 else _WORST)
            for number, beam in enumerate(self.beams)
        ]

    def advance(self, candidates: Sequence[_Candidate]) -> bool:
        """Advance by one token; True when the search is over.

        ``candidates`` are the best continuations, best first.
        """
        width = len(self.beams)
        for each in candidates[:width]:
            if each.ends:
                self.finished.append(_Beam(self._per_length(each.beam), each.beam.sequence))
        # A stable sort: of equal scores the one found earlier stays before.
        self.finished = sorted(self.finished, key=lambda beam: -beam.score)[:width]
        unfinished = [each for each in candidates if not each.ends][:width]
        self.beams = [each.beam for each in unfinished]
        self.parents = [each.parent for each in unfinished]
        if len(self.beams) < width:  # every sequence is at its limit
            return True
        if len(self.finished) < width:
            return False
        return bool(self._per_length(self.beams[0]) <= self.finished[-1].score)

    def _per_length(self, beam: _Beam) -> np.float32:
        # In float32, as in transformers: near ties are decided by the last bit.
        return np.float32(beam.score / np.float32(len(beam.sequence.tokens) ** self.penalty))


def _max_groups(session: DecoderSession, width: int) -> int:
    """How many requests are searched together.

    As many as fit into the slots there are at most. On a CPU that is rounded up to a multiple of
    eight requests, as long as it needs at most twice the slots: 32 requests of five beams took
    3.3 s with 80 slots in place of 3.8 with 64, where the last eight run by themselves.
    """
    most = scheduler.max_slots(session)
    groups = max(1, most // width)
    if session.device.type != "cpu" or session.slot_limit:
        return groups
    return min(round_up(groups, ROW_MULTIPLE), max(1, 2 * most // width))


class _BeamDecoder:
    """Searches the requests of one slot shape, each in a group of slots."""

    def __init__(
        self,
        session: DecoderSession,
        shape: SlotShape,
        requests: Sequence[DecodeRequest],
        end: frozenset[int],
        rule: Rule | None,
        options: DecodeOptions,
    ) -> None:
        self.width = options.num_beams
        groups = min(len(requests), _max_groups(session, self.width))
        self.session, self.end, self.rule, self.options = session, end, rule, options
        self.candidate_count = max(2, 1 + len(end)) * self.width
        self.searches = [
            _Search(
                request,
                options.length_penalty,
                [_Beam(np.float32(0), GeneratedTokens())] * self.width,
            )
            for request in requests
        ]
        # The search that each group of slots runs; None: a free group.
        self.search_of_group: list[int | None] = [None] * groups
        count = round_up(groups * self.width, ROW_MULTIPLE)
        self.tokens = [0] * count
        self.slots = session.open_slots(shape, count)
        self.waiting = deque(range(len(requests)))

    def run(self) -> list[list[GeneratedTokens]]:
        """Search until no request waits and no search is in progress."""
        device = self.session.device
        self._refill()
        while running := [g for g, n in enumerate(self.search_of_group) if n is not None]:
            rows = [g * self.width + beam for g in running for beam in range(self.width)]
            fed, taken = to_device(self.tokens, device), to_device(rows, device)
            logits = self.slots.decode_step(fed)[taken]
            self._advance(running, logits.float().log_softmax(dim=-1))
            self._refill()
        count = self.options.num_captions
        return [[beam.sequence for beam in each.finished[:count]] for each in self.searches]

    def _refill(self) -> None:
        free = [g for g, n in enumerate(self.search_of_group) if n is None]
        enough = max(1, len(self.search_of_group) // scheduler.REFILL_DIVISOR)
        if not self.waiting or len(free) < min(enough, len(self.waiting)):
            return
        taken = [(group, self.waiting.popleft()) for group in free[: len(self.waiting)]]
        slots = [group * self.width + beam for group, _ in taken for beam in range(self.width)]
        requests = [self.searches[n].request for _, n in taken for _ in range(self.width)]
        tokens = self.slots.prefill(slots, requests)
        for slot, token in zip(slots, tokens, strict=True):
            self.tokens[slot] = token
        for group, number in taken:
            self.search_of_group[group] = number

    def _advance(self, running: Sequence[int], raw_logprobs: Tensor) -> None:
        """Advance the running groups by one token.

        ``raw_logprobs`` [groups x beams, V] are those of the next tokens.
        """
        numbers = [self.search_of_group[group] for group in running]
        searches = [self.searches[number] for number in numbers if number is not None]
        candidates = self._candidates(searches, raw_logprobs)
        into, origin, decoded = [], [], 0
        for group, search, best in zip(running, searches, candidates, strict=True):
            if search.advance(best):
                self.search_of_group[group] = None
                continue
            first = group * self.width
            for place, (beam, parent) in enumerate(zip(search.beams, search.parents, strict=True)):
                self.tokens[first + place] = beam.sequence.tokens[-1]
                if parent != place:
                    decoded = max(decoded, len(beam.sequence.tokens))
                    into.append(first + place)
                    origin.append(first + parent)
        if into:
            self.slots.reorder(into, origin, decoded)

    def _candidates(
        self, searches: Sequence[_Search], raw_logprobs: Tensor
    ) -> list[list[_Candidate]]:
        """The best continuations of each search, best first."""
        scores = raw_logprobs
        if self.rule is not None:
            inputs = [self.session.input_ids(each.request) for each in searches for _ in each.beams]
            tokens = [beam.sequence.tokens for each in searches for beam in each.beams]
            scores = self.rule(History.of(inputs, tokens, raw_logprobs.device), raw_logprobs)
        start = to_device([each.scores() for each in searches], raw_logprobs.device)
        total = (scores.unflatten(0, (len(searches), self.width)) + start[..., None]).flatten(1)
        best, indices = total.topk(min(self.candidate_count, total.shape[1]))
        logprobs = raw_logprobs.reshape(len(searches), -1).gather(1, indices)
        vocabulary = raw_logprobs.shape[-1]
        found = zip(searches, *AsyncCopy(best, indices, logprobs).values(), strict=True)
        return [
            [
                self._candidate(search, index // vocabulary, index % vocabulary, score, logprob)
                for score, index, logprob in zip(totals, places, raw, strict=True)
            ]
            for search, totals, places, raw in found
        ]

    def _candidate(
        self, search: _Search, parent: int, token: int, score: float, logprob: float
    ) -> _Candidate:
        """The beam ``parent`` of a search continued by ``token``, with its new score."""
        prefix = search.beams[parent].sequence
        longer = GeneratedTokens([*prefix.tokens, token], [*prefix.logprobs, logprob])
        ends = token in self.end or len(longer.tokens) >= search.request.max_tokens
        return _Candidate(_Beam(np.float32(score), longer), parent, ends)
