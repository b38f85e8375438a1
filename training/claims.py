"""Captions taken apart, so that what is wrong in a wrong one is known word for word."""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

from blip2cli.tiny.kinds import COLORS, KINDS, counted, groups, with_article
from blip2cli.tiny.scenes import MAX_OBJECTS, Scene


@dataclass(frozen=True)
class Claim:
    """What a caption claims: counts of kinds, and a background."""

    kinds: tuple[str, ...]  # one entry an object
    background: str

    @classmethod
    def of(cls, scene: Scene) -> Claim:
        """What is true of a scene."""
        return cls(tuple(sorted(scene.kinds)), scene.background)

    @property
    def pieces(self) -> list[tuple[str, tuple[str, int] | None]]:
        """The caption's phrases in order, each with the group that it names.

        ``(kind, count)``; a background is ``(its name, 0)``; None: a word that claims nothing.
        """
        found = groups(self.kinds)
        pieces: list[tuple[str, tuple[str, int] | None]] = []
        for place, (kind, count) in enumerate(found):
            if place:
                pieces.append((" and" if place == len(found) - 1 else ",", None))
            pieces.append(((" " if place else "") + counted(kind, count), (kind, count)))
        pieces.append((" on", None))
        pieces.append((f" {with_article(self.background)} background", (self.background, 0)))
        return pieces

    @property
    def text(self) -> str:
        """``two cats and a pizza on a blue background``."""
        return "".join(piece for piece, _ in self.pieces)

    def holds(self, scene: Claim, group: tuple[str, int]) -> bool:
        """Whether a group that this claim names is what ``scene`` has."""
        name, count = group
        return scene.background == name if count == 0 else scene.kinds.count(name) == count


def another_object(rng: random.Random, claim: Claim) -> Claim:
    """One object is of a kind that is not there."""
    kinds = list(claim.kinds)
    kinds[rng.randrange(len(kinds))] = rng.choice([k for k in KINDS if k not in claim.kinds])
    return Claim(tuple(sorted(kinds)), claim.background)


def another_count(rng: random.Random, claim: Claim) -> Claim:
    """One group has one object more or less, but at least one."""
    kinds = list(claim.kinds)
    kind = rng.choice(sorted(set(kinds)))
    fewer = kinds.count(kind) > 1 and (len(kinds) == MAX_OBJECTS or rng.random() < 0.5)
    if fewer:
        kinds.remove(kind)
    elif len(kinds) < MAX_OBJECTS:
        kinds.append(kind)
    else:  # five objects, each of its own kind: none can be added or taken
        return another_object(rng, claim)
    return Claim(tuple(sorted(kinds)), claim.background)


def another_background(rng: random.Random, claim: Claim) -> Claim:
    """The background has another colour."""
    return Claim(claim.kinds, rng.choice([c for c in COLORS if c != claim.background]))


CHANGES: dict[str, Callable[[random.Random, Claim], Claim]] = {
    "another kind": another_object,
    "another count": another_count,
    "another background": another_background,
}


def nearly_right(rng: random.Random, claim: Claim) -> Claim:
    """A caption with one thing wrong: an object's kind, a count or the background."""
    return rng.choice(list(CHANGES.values()))(rng, claim)
