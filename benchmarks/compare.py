"""Whether the peers say the same, before any time is printed.

Within one precision texts are demanded equal token by token. In float32 the one excuse is a tie:
two tokens that are equally likely up to ``TIE``, as transformers' own ``forward`` scores them. In
bfloat16 random weights give near-ties often, so there the share of equal tokens and the largest gap
at a first difference are reported instead. Between precisions only shares are reported, and of
hidden states how far they are from those in float32.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rounds import Ran, hosts
from work import Setting, Work

TIE = 1e-3  # in log-probability: float32 sums of another order differ by that much at most
SCORES = 1e-3  # the same for log-probabilities of choices
VECTORS = 1e-4  # largest difference of a vector's numbers, over the vector's length
STATES = 0.05  # of the norm of hidden states: how far rounding may move them
LOOKED_AT = 8  # texts that differ of which the gap is measured


class DifferentError(Exception):
    """Two peers do not say the same."""


Check = Callable[[str, str, list[Any], list[Any]], None]


def compare(kind: str, path: Path, work: Work, ran: dict[str, Ran]) -> list[str]:
    """Notes for the result. Raises DifferentError where there has to be agreement."""
    if kind == "vision":
        return _errors(ran)
    notes = []
    leaders: dict[str, str] = {}  # the first peer of each precision
    for peer, its in ran.items():
        for again in its.answers[1:]:
            if kind != "embed" and again != its.answers[0]:
                raise DifferentError(f"{peer} says one thing in one round and another in the next.")
        leader = leaders.setdefault(its.dtype, peer)
        if leader != peer:
            notes += _same(kind, path, work, ran, leader, peer)
    ours = list(ran)[-1]
    for dtype, leader in leaders.items():
        if dtype != ran[ours].dtype and kind in _TEXTS:
            texts = _Texts(ran[leader], ran[ours])
            notes.append(f"{ours} in {ran[ours].dtype} beside {leader} in {dtype}: {texts}")
    return notes


_TEXTS = ("caption", "ask", "beam")


def _same(
    kind: str, path: Path, work: Work, ran: dict[str, Ran], leader: str, peer: str
) -> list[str]:
    if kind not in _TEXTS:
        return _numbers(kind, ran, leader, peer)
    texts = _Texts(ran[leader], ran[peer])
    dtype = ran[peer].dtype
    if not texts.apart:
        return [f"{peer} writes the same tokens as {leader} ({dtype}, {texts.count} texts)"]
    line = f"{peer} beside {leader} in {dtype}: {texts}"
    if kind == "beam":
        raise DifferentError(f"{line}; {texts.first()}")
    looked = texts.apart[:LOOKED_AT]
    gap = max(_gaps(path, work, dtype, looked))
    line += f"; at the first difference the two tokens are {gap:.2g} apart in log-probability"
    line += f" at most ({len(looked)} texts looked at)"
    if dtype == "float32" and gap > TIE:
        raise DifferentError(f"{line}; {texts.first()}")
    return [line]


@dataclass(frozen=True)
class _Apart:
    """A text that two peers write differently."""

    number: int  # of the image
    prompt: int
    left: list[int]
    right: list[int]

    @property
    def place(self) -> int:
        """The first token that differs; the end of the shorter text where none does."""
        pairs = enumerate(zip(self.left, self.right, strict=False))
        return next((i for i, (a, b) in pairs if a != b), min(len(self.left), len(self.right)))


class _Texts:
    """The texts of the images that both have run."""

    def __init__(self, left: Ran, right: Ran) -> None:
        self.apart: list[_Apart] = []
        self.count = self._tokens = self._equal = 0
        ours = dict(zip(right.numbers, right.answers[0], strict=True))
        for number, texts in zip(left.numbers, left.answers[0], strict=True):
            for prompt, (one, other) in enumerate(zip(texts, ours.get(number, []), strict=False)):
                self.count += 1
                self._tokens += max(len(one), len(other))
                self._equal += sum(a == b for a, b in zip(one, other, strict=False))
                if one != other:
                    self.apart.append(_Apart(number, prompt, one, other))

    def first(self) -> str:
        """The first text that differs."""
        one = self.apart[0]
        return f"first in image {one.number}: {one.right} instead of {one.left}."

    def __str__(self) -> str:
        same = self.count - len(self.apart)
        share = self._equal / max(1, self._tokens)
        return f"{same} of {self.count} texts and {share:.1%} of the tokens are equal"


def _gaps(path: Path, work: Work, dtype: str, apart: Sequence[_Apart]) -> list[float]:
    """How far apart the two tokens at each first difference are, by transformers' ``forward``."""
    gaps = []
    with hosts("choices", path, [("forward", dtype)]) as (host,):
        for one in apart:
            end = one.place + 1
            if min(len(one.left), len(one.right)) < end:
                gaps.append(float("inf"))  # one goes on where the other has ended
                continue
            asked = replace(
                work,
                kind="choices",
                files=(work.files[one.number],),
                prompts=(work.prompts[one.prompt],),
                given=((tuple(one.left[:end]), tuple(one.right[:end])),),
            )
            ((left, right),) = host.run(asked, Setting(1))["answers"]
            gaps.append(abs(left - right))
    return gaps


def _numbers(kind: str, ran: dict[str, Ran], leader: str, peer: str) -> list[str]:
    """Demand equal numbers, within the kind's tolerance."""
    rows = list(zip(ran[leader].answers[0], ran[peer].answers[0], strict=True))
    who = f"{peer} beside {leader}"
    if kind == "pixels":
        wrong = sum(a != b for a, b in rows)
        if wrong:
            raise DifferentError(f"{who}: the pixels of {wrong} of {len(rows)} images differ.")
        return [f"{who}: the pixels of all {len(rows)} images are the same, bit for bit"]
    if kind == "choices":
        gap = max(abs(a - b) for left, right in rows for a, b in zip(left, right, strict=True))
        turned = sum(_ranking(left) != _ranking(right) for left, right in rows)
        if gap > SCORES or turned:
            raise DifferentError(
                f"{who}: log-probabilities are up to {gap:.2g} apart ({SCORES:g} allowed) and "
                f"{turned} of {len(rows)} rankings differ."
            )
        return [f"{who}: the same rankings, log-probabilities at most {gap:.1g} apart"]
    gap = max(
        max(abs(a - b) for a, b in zip(left, right, strict=True)) / sum(a * a for a in left) ** 0.5
        for left, right in rows
    )
    if gap > VECTORS:
        raise DifferentError(f"{who}: vectors are {gap:.2g} of their length apart.")
    return [f"{who}: vectors are at most {gap:.1g} of their length apart ({VECTORS:g} allowed)"]


def _errors(ran: dict[str, Ran]) -> list[str]:
    """How far each peer is from the one in float32."""
    exact = next(peer for peer, its in ran.items() if its.dtype == "float32")
    notes = []
    for peer, its in ran.items():
        if peer == exact:
            continue
        rows = zip(ran[exact].answers[0], its.answers[-1], strict=True)
        errors = [math.dist(left, right) / math.hypot(*left) for left, right in rows]
        mean = sum(errors) / len(errors)
        line = f"{peer} in {its.dtype} is {mean:.2%} of the states' norm from {exact} in float32"
        line += f" ({max(errors):.2%} in the worst of {len(errors)} images)"
        if max(errors) > STATES:
            raise DifferentError(f"{line}; {STATES:.0%} are allowed.")
        notes.append(line)
    return notes


def _ranking(scores: Sequence[float]) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: -scores[i])
