"""Positions of equal keys: rows of one length run together, without padding."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

Key = TypeVar("Key")


def grouped(
    keys: Iterable[Key], chunk: Callable[[Key], int] | int | None = None
) -> Iterator[tuple[Key, list[int]]]:
    """Each key with the positions it stands at, in order of first appearance.

    ``chunk`` is the most positions given at once, or the function of the key that says it; None:
    all of them.
    """
    positions: dict[Key, list[int]] = defaultdict(list)
    for position, key in enumerate(keys):
        positions[key].append(position)
    for key, members in positions.items():
        size = chunk(key) if callable(chunk) else chunk or len(members)
        for start in range(0, len(members), size):
            yield key, members[start : start + size]
