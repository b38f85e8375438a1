"""The decode loop that never lets the device wait: tokens are read one step late.

Where a step runs on a device of its own, asking for its token lets the device stand still until
the host has seen it and sent the next step. Here the next token is chosen on the device and
goes into the next step at once; meanwhile the host reads what the step before it chose. A
text that ended is noticed one step late, and the token that was appended to it is dropped. A text
at its limit is known to end without looking, so its slot is free at once.

Each row is computed from its own text alone, so the texts are those of the direct loop.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from blip2cli.model.decoding.scheduler import Loop
from blip2cli.model.decoding.transfer import Readback

DEVICES = frozenset({"cuda"})  # a CPU computes the next step no sooner for being told sooner


def reads_late(device: torch.device, plain: bool) -> bool:
    """Whether texts are written by this loop; ``plain``: always the best by the raw scores."""
    return plain and device.type in DEVICES


@dataclass(frozen=True)
class _Step:
    """What the device was told to do."""

    owner: tuple[int | None, ...]  # the text that each slot wrote
    chosen: Readback  # tokens [S] and their log-probabilities [S]


class LateLoop(Loop):
    """The texts of one shape, the best token of each step by the raw scores."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        assert self.rules is None
        self.next = torch.zeros(len(self.owner), dtype=torch.long, device=self.reader.device)
        self.asked: dict[int, int] = defaultdict(int)  # tokens that each text was given or will be
        self.ended: set[int] = set()

    def run(self) -> None:
        """Write until no text waits and none is under way."""
        self._refill()
        before: _Step | None = None
        while True:
            step = self._launch() if any(owner is not None for owner in self.owner) else None
            if before is not None:
                self._read(before)
            elif step is None:
                return
            before = step
            self._refill()
            self._shrink()

    def _launch(self) -> _Step:
        """Tell the device to append a token to every slot and to choose the next."""
        scores = self.slots.step(self.next).float()
        self.next = scores.argmax(dim=-1)
        said = scores.log_softmax(dim=-1).gather(1, self.next[:, None])[:, 0]
        step = _Step(tuple(self.owner), Readback(self.next, said))
        for slot, number in enumerate(step.owner):
            if number is not None:
                self.asked[number] += 1
                if self.asked[number] >= self.requests[number].limit:
                    self.owner[slot] = None
        return step

    def _read(self, step: _Step) -> None:
        """Take what a step chose."""
        tokens, said = step.chosen.values()
        for number, token, logprob in zip(step.owner, tokens, said, strict=True):
            if number is None or number in self.ended:
                continue
            text = self.texts[number]
            text.tokens.append(token)
            text.logprobs.append(logprob)
            if token in self.end:
                self.ended.add(number)
                if number in self.owner:
                    self.owner[self.owner.index(number)] = None

    def _put(self, places: Sequence[int], tokens: Sequence[int]) -> None:
        both = torch.tensor((places, tokens), device=self.next.device)
        # Not in place: what was chosen is still being read.
        self.next = self.next.index_copy(0, both[0], both[1])

    def _keep(self, kept: Sequence[int]) -> None:
        super()._keep(kept)
        self.next = self.next[torch.tensor(kept, device=self.next.device)]
