"""Beam search in slots, choosing what transformers' ``generate`` chooses for each text alone.

Each text has as many neighbouring slots as beams. What stands before the text is read once and
never moved: when beams change places, only the positions written since are copied.

The search is that of ``GenerationMixin._beam_search`` with ``early_stopping=False``, for one text
at a time: of all continuations the best (1 + end tokens) x beams are looked at; those among the
first ``num_beams`` that end are finished; the best that do not end go on; and it is over when
the best beam, at its present length, is no better than the worst of ``num_beams`` finished texts.
"""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from blip2cli.model.decoding import scheduler as slots
from blip2cli.model.decoding.sampling import Written
from blip2cli.model.decoding.scheduler import Reader, Request, Rules, Shape, round_up, ruled
from blip2cli.model.layers.linear import ROWS
from blip2cli.options import DecodeOptions

_WORST = np.float32(-1e9)  # as in transformers: scores are float32, and this is below all of them


@torch.inference_mode()
def search(
    reader: Reader,
    requests: Sequence[Request],
    end: Sequence[int],
    rules: Rules | None,
    options: DecodeOptions,
) -> list[list[Written]]:
    """The best ``options.num_captions`` texts of each request, best first.

    Texts are ranked by the search's own score, the sum of processed log-probabilities over
    length to the power of the length penalty; what they report is the raw model's.
    """
    shapes: dict[Shape, list[int]] = defaultdict(list)
    for number, request in enumerate(requests):
        shapes[reader.shape(request)].append(number)
    found: list[list[Written]] = [[] for _ in requests]
    for shape, members in shapes.items():
        asked = [requests[number] for number in members]
        reader.expect([(each.image, each.prompt) for each in asked])
        loop = _Loop(reader, shape, asked, frozenset(end), rules, options)
        for number, texts in zip(members, loop.run(), strict=True):
            found[number] = texts
    reader.expect(())  # lets go of what was read ahead
    return found


@dataclass
class _Beam:
    """One text on its way."""

    score: np.float32  # sum of the processed log-probabilities
    text: Written


@dataclass
class _Search:
    """The beams of one request; ``beams`` are best first."""

    request: Request
    penalty: float
    beams: list[_Beam]
    finished: list[_Beam] = field(default_factory=list)  # by score over length, best first

    def scores(self) -> list[float]:
        """The score of each beam; before the first token only one counts, as all are alike."""
        return [
            float(beam.score if beam.text.tokens or number == 0 else _WORST)
            for number, beam in enumerate(self.beams)
        ]

    def take(self, candidates: Sequence[tuple[_Beam, bool]]) -> bool:
        """Go one token further; True when the search is over.

        ``candidates`` are the best continuations, best first, and whether they end.
        """
        width = len(self.beams)
        for beam, ends in candidates[:width]:
            if ends:
                self.finished.append(_Beam(self._per_length(beam), beam.text))
        # A stable sort: of equal scores the one found earlier stays before.
        self.finished = sorted(self.finished, key=lambda beam: -beam.score)[:width]
        self.beams = [beam for beam, ends in candidates if not ends][:width]
        if len(self.beams) < width:  # every text is as long as it may be
            return True
        if len(self.finished) < width:
            return False
        return bool(self._per_length(self.beams[0]) <= self.finished[-1].score)

    def _per_length(self, beam: _Beam) -> np.float32:
        # In float32, as there: near ties are decided by the last bit.
        return np.float32(beam.score / np.float32(len(beam.text.tokens) ** self.penalty))


def _together(reader: Reader, width: int) -> int:
    """How many texts are searched at once.

    A CPU takes them in eights, as batches are, where a few more slots will do: 32 texts of five
    beams took 3.3 s with 80 slots in place of 3.8 with 64, where the last eight are left alone.
    """
    most = slots.most(reader)
    groups = max(1, most // width)
    if reader.device.type != "cpu" or reader.at_once:
        return groups
    return min(round_up(groups, ROWS), max(1, 2 * most // width))


class _Loop:
    """All requests of one shape."""

    def __init__(
        self,
        reader: Reader,
        shape: Shape,
        requests: Sequence[Request],
        end: frozenset[int],
        rules: Rules | None,
        options: DecodeOptions,
    ) -> None:
        self.width = options.num_beams
        groups = min(len(requests), _together(reader, self.width))
        self.reader, self.end, self.rules, self.options = reader, end, rules, options
        self.looked_at = max(2, 1 + len(end)) * self.width
        self.searches = [
            _Search(request, options.length_penalty, [_Beam(np.float32(0), Written())] * self.width)
            for request in requests
        ]
        self.owner: list[int | None] = [None] * groups  # the search that each group of slots runs
        count = round_up(groups * self.width, ROWS)
        self.tokens = [0] * count
        self.slots = reader.open(shape, count)
        self.waiting = deque(range(len(requests)))

    def run(self) -> list[list[Written]]:
        """Search until no request waits and none is under way."""
        self._refill()
        while running := [g for g, owner in enumerate(self.owner) if owner is not None]:
            rows = [g * self.width + beam for g in running for beam in range(self.width)]
            raw = self.slots.step(torch.tensor(self.tokens))
            self._advance(running, raw[rows].float().log_softmax(dim=-1))
            self._refill()
        kept = self.options.num_captions
        return [[beam.text for beam in each.finished[:kept]] for each in self.searches]

    def _refill(self) -> None:
        free = [g for g, owner in enumerate(self.owner) if owner is None]
        least = max(1, len(self.owner) // slots.REFILL)
        if not self.waiting or len(free) < min(least, len(self.waiting)):
            return
        taken = [(group, self.waiting.popleft()) for group in free[: len(self.waiting)]]
        places = [group * self.width + beam for group, _ in taken for beam in range(self.width)]
        requests = [self.searches[n].request for _, n in taken for _ in range(self.width)]
        following = self.slots.fill(places, requests)
        for place, token in zip(places, following, strict=True):
            self.tokens[place] = token
        for group, number in taken:
            self.owner[group] = number

    def _advance(self, running: Sequence[int], raw: Tensor) -> None:
        """Take the raw log-probabilities [groups x beams, V] of the next tokens."""
        owners = [self.owner[group] for group in running]
        searches = [self.searches[number] for number in owners if number is not None]
        scores = raw
        if self.rules is not None:
            before = [self.reader.history(each.request) for each in searches for _ in each.beams]
            said = [beam.text.tokens for each in searches for beam in each.beams]
            scores = ruled(self.rules, before, said, raw)
        start = torch.tensor([each.scores() for each in searches], device=raw.device)
        vocabulary = raw.shape[-1]
        total = (scores.unflatten(0, (len(searches), self.width)) + start[..., None]).flatten(1)
        best, places = total.topk(min(self.looked_at, total.shape[1]))
        said_raw = raw.reshape(len(searches), -1).gather(1, places).tolist()
        into, origin = [], []
        for row, (group, each) in enumerate(zip(running, searches, strict=True)):
            candidates, origins = [], {}
            for value, place, logprob in zip(
                best[row].tolist(), places[row].tolist(), said_raw[row], strict=True
            ):
                came, token = divmod(place, vocabulary)
                text = each.beams[came].text
                longer = Written([*text.tokens, token], [*text.logprobs, logprob])
                beam = _Beam(np.float32(value), longer)
                origins[id(beam)] = came
                ends = token in self.end or len(longer.tokens) >= each.request.limit
                candidates.append((beam, ends))
            if each.take(candidates):
                self.owner[group] = None
                continue
            for number, beam in enumerate(each.beams):
                slot = group * self.width + number
                self.tokens[slot] = beam.text.tokens[-1]
                if origins[id(beam)] != number:
                    into.append(slot)
                    origin.append(group * self.width + origins[id(beam)])
        if into:
            self.slots.move(into, origin)
