"""The decode loop: texts in slots, and who waits takes the slot of who is done.

A language model keeps the keys and values of a fixed number of slots in tensors that were made
once. Each step appends one token to every slot; a text that ends leaves at once and the next
waiting one is read into its place, so a batch never waits for its longest text.

A row's bits never depend on its neighbours: a slot attends over a length that its own text alone
decides (see ``Reader.shape``), linear layers see to it that the number of rows does not matter (see
``linear``), attention is plain matrix products, and each sampled row draws from a generator of its
own.
"""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from blip2cli.model.decoding.sampling import Written, draw
from blip2cli.model.layers.linear import ROWS

SLOTS = 64  # texts under way at most
REFILL = 8  # slots are filled together, an eighth of all, if so many texts wait

Pair = tuple[int, tuple[int, ...]]  # row of the features, and the ids of the prompt behind it


@dataclass(frozen=True)
class Request:
    """One text to be written."""

    image: int  # row of the features
    prompt: tuple[int, ...]  # ids, never empty
    limit: int  # at most so many tokens
    room: int  # tokens there is to be room for; at least ``limit``, and one for a whole batch
    generator: torch.Generator | None = None  # draws from it; None: takes the best


@dataclass(frozen=True)
class Shape:
    """The room that a text needs. Texts of one shape share slots."""

    read: int  # positions read before the first step, those that only fill up included
    capacity: int  # positions that the writing side attends over


class Slots(Protocol):
    """Keys and values of S texts under way, in tensors that are made once (see ``room``)."""

    def fill(self, slots: Sequence[int], requests: Sequence[Request]) -> list[int]:
        """Read what stands before each text into a slot; returns the token to step with."""

    def step(self, tokens: Tensor) -> Tensor:
        """Append one token a slot, [S]; return the next token's raw scores, [S, V]."""

    def move(self, into: Sequence[int], origin: Sequence[int]) -> None:
        """Copy what was written since filling from slots to others, all at once.

        What was read before it must be the same in both.
        """

    def keep(self, slots: Sequence[int]) -> None:
        """Keep only these slots, in this order."""


class Reader(Protocol):
    """A language model that knows the images of one batch."""

    @property
    def device(self) -> torch.device:
        """Where it runs."""

    @property
    def at_once(self) -> int:
        """How many texts a step takes in one product; 0: any number."""

    def shape(self, request: Request) -> Shape:
        """Depends on nothing but the request."""

    def expect(self, pairs: Sequence[Pair]) -> None:
        """Images with prompts that will be asked for, in this order: what is quicker read together
        may be so."""

    def open(self, shape: Shape, slots: int) -> Slots:
        """Make so many empty slots."""

    def history(self, request: Request) -> tuple[int, ...]:
        """The ids that repetition rules count as written before, as transformers does."""

    def padded(self, prompt: int, tokens: int) -> int:
        """How many tokens a continuation of so many is run as, behind a prompt of such a length:
        the bits of its scores depend on that number."""

    def follow(self, pairs: Sequence[Pair], which: Tensor, tokens: Tensor) -> Tensor:
        """Hidden states [N, T + 1, D] after a prompt and after each of tokens [N, T].

        ``pairs`` are images with prompts of one length, each read once; ``which`` [N] says whose
        continuation each row is.
        """

    def scores(self, hidden: Tensor) -> Tensor:
        """Hidden states [..., D] to raw scores [..., V] of the token that comes next."""


# From the length of the history before the first new token to the rules on the next token's scores,
# which take ids [R, H] and raw scores [R, V] and give scores [R, V].
Rules = Callable[[int], Callable[[Tensor, Tensor], Tensor]]


@torch.inference_mode()
def write(
    reader: Reader,
    requests: Sequence[Request],
    end: Sequence[int],
    rules: Rules | None,
    kind: type[Loop] | None = None,
) -> list[Written]:
    """Write all texts; the result is in the order of the requests.

    ``rules`` None: the raw scores decide. ``kind`` is the loop that does it.
    """
    texts = [Written() for _ in requests]
    shapes: dict[Shape, list[int]] = defaultdict(list)
    for number, request in enumerate(requests):
        shapes[reader.shape(request)].append(number)
    for shape, members in shapes.items():
        reader.expect([(requests[n].image, requests[n].prompt) for n in members])
        (kind or Loop)(reader, shape, requests, members, texts, frozenset(end), rules).run()
    reader.expect(())  # lets go of what was read ahead
    return texts


def ruled(
    rules: Rules, before: Sequence[tuple[int, ...]], said: Sequence[Sequence[int]], raw: Tensor
) -> Tensor:
    """Scores under the rules, from what stood before each row, what it said, and raw [R, V].

    The rules want histories of one length, so rows of equal lengths are judged together.
    """
    lengths: dict[tuple[int, int], list[int]] = defaultdict(list)
    for row, (early, late) in enumerate(zip(before, said, strict=True)):
        lengths[len(early), len(late)].append(row)
    scores = torch.empty_like(raw)
    for (length, _), rows in lengths.items():
        ids = torch.tensor([(*before[row], *said[row]) for row in rows], device=raw.device)
        scores[rows] = rules(length)(ids, raw[rows])
    return scores


class Loop:
    """The texts of one shape."""

    def __init__(
        self,
        reader: Reader,
        shape: Shape,
        requests: Sequence[Request],
        members: Sequence[int],
        texts: list[Written],
        end: frozenset[int],
        rules: Rules | None,
    ) -> None:
        count = min(most(reader), round_up(len(members), ROWS))
        self.reader = reader
        self.slots = reader.open(shape, count)
        self.owner: list[int | None] = [None] * count  # the text that each slot writes
        self.tokens = [0] * count  # the next to be appended
        self.waiting = deque(members)
        self.requests = requests
        self.texts = texts
        self.end = end
        self.rules = rules

    def run(self) -> None:
        """Write until no text waits and none is under way."""
        self._refill()
        while running := [s for s, owner in enumerate(self.owner) if owner is not None]:
            raw = self.slots.step(torch.tensor(self.tokens))
            rows = raw if len(running) == len(self.owner) else raw[running]
            self._take(running, *self._choose(running, rows.float()))
            self._refill()
            self._shrink()

    def _refill(self) -> None:
        free = [s for s, owner in enumerate(self.owner) if owner is None]
        if not self.waiting or len(free) < min(len(self.owner) // REFILL, len(self.waiting)):
            return
        taken = [self.waiting.popleft() for _ in free[: len(self.waiting)]]
        places = free[: len(taken)]
        following = self.slots.fill(places, [self.requests[n] for n in taken])
        for place, number in zip(places, taken, strict=True):
            self.owner[place] = number
        self._put(places, following)

    def _put(self, places: Sequence[int], tokens: Sequence[int]) -> None:
        """These are the next tokens of some slots."""
        for place, token in zip(places, tokens, strict=True):
            self.tokens[place] = token

    def _shrink(self) -> None:
        """Let empty slots go when nobody waits for them and half of all are empty."""
        running = [s for s, owner in enumerate(self.owner) if owner is not None]
        count = round_up(len(running), ROWS)
        if self.waiting or not running or 2 * count > len(self.owner):
            return
        # Who is among those that stay is not moved.
        kept = list(range(count))
        free = iter([s for s in kept if self.owner[s] is None])
        for slot in running:
            if slot >= count:
                kept[next(free)] = slot
        self._keep(kept)

    def _keep(self, kept: Sequence[int]) -> None:
        """Go on with these slots alone, in this order."""
        self.slots.keep(kept)
        self.owner = [self.owner[s] for s in kept]
        self.tokens = [self.tokens[s] for s in kept]

    def _choose(self, running: Sequence[int], raw: Tensor) -> tuple[list[int], list[float]]:
        """The next token of each running slot from raw scores [R, V], and its log-probability."""
        scores = raw
        if self.rules is not None:
            numbers = [self._number(slot) for slot in running]
            before = [self.reader.history(self.requests[number]) for number in numbers]
            scores = ruled(self.rules, before, [self.texts[n].tokens for n in numbers], raw)
        generators = [self.requests[self._number(slot)].generator for slot in running]
        drawing = [generator for generator in generators if generator is not None]
        chosen = draw(scores, drawing) if drawing else scores.argmax(dim=-1)
        said = raw.log_softmax(dim=-1).gather(1, chosen[:, None])[:, 0]
        return chosen.tolist(), said.tolist()

    def _take(self, running: Sequence[int], chosen: list[int], said: list[float]) -> None:
        for slot, token, logprob in zip(running, chosen, said, strict=True):
            number = self._number(slot)
            text = self.texts[number]
            text.tokens.append(token)
            text.logprobs.append(logprob)
            if token in self.end or len(text.tokens) >= self.requests[number].limit:
                self.owner[slot] = None
            self.tokens[slot] = token

    def _number(self, slot: int) -> int:
        """The number of the text that a running slot writes."""
        number = self.owner[slot]
        assert number is not None
        return number


def most(reader: Reader) -> int:
    """How many texts are under way at most."""
    return min(SLOTS, reader.at_once or SLOTS)


def take_ahead(pairs: Sequence[Pair], expected: dict[Pair, None], most: int) -> list[Pair]:
    """Each of ``pairs`` once, and of those expected next as many as make ``most`` in all, which
    are expected no longer."""
    taken = dict.fromkeys(pairs)
    for pair in taken:
        expected.pop(pair, None)
    following = list(itertools.islice(expected, max(0, most - len(taken))))
    for pair in following:
        del expected[pair]
    return [*taken, *following]


def round_up(number: int, step: int) -> int:
    """The next multiple of ``step``: texts of almost one length get one shape."""
    return -(-number // step) * step
