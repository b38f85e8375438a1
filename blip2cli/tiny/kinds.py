"""What the embedded models know: the kinds of objects, the colours, and the caption's grammar."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

# Order matters: captions list kinds of equal count in this order.
EMOJI: dict[str, str] = {
    "cat": "🐈",
    "dog": "🐕",
    "horse": "🐎",
    "cow": "🐄",
    "pig": "🐖",
    "rabbit": "🐇",
    "bird": "🐦",
    "fish": "🐟",
    "butterfly": "🦋",
    "elephant": "🐘",
    "apple": "🍎",
    "banana": "🍌",
    "pizza": "🍕",
    "cake": "🎂",
    "carrot": "🥕",
    "strawberry": "🍓",
    "car": "🚗",
    "bus": "🚌",
    "bicycle": "🚲",
    "airplane": "✈️",
    "boat": "⛵",
    "train": "🚆",
    "tree": "🌳",
    "flower": "🌻",
    "cactus": "🌵",
    "house": "🏠",
    "ball": "⚽",
    "guitar": "🎸",
    "umbrella": "☂️",
    "chair": "🪑",
    "clock": "⏰",
    "book": "📕",
    "key": "🔑",
    "star": "⭐",
    "moon": "🌙",
    "cup": "☕",
}
KINDS: tuple[str, ...] = tuple(EMOJI)
ANIMALS = frozenset(KINDS[:10])

IRREGULAR_PLURALS = {
    "butterfly": "butterflies",
    "strawberry": "strawberries",
    "bus": "buses",
    "fish": "fish",
    "cactus": "cactuses",
}

NUMBERS = ("zero", "one", "two", "three", "four", "five")

# A few anchors for each named colour; a background is drawn from between two of them.
COLORS: dict[str, tuple[tuple[int, int, int], ...]] = {
    "red": ((220, 20, 30), (255, 0, 0), (215, 40, 40), (230, 60, 50), (205, 15, 20)),
    "green": ((0, 128, 0), (60, 170, 70), (0, 200, 60), (40, 140, 50), (110, 190, 90), (0, 255, 0)),
    "blue": ((0, 0, 255), (50, 90, 220), (30, 60, 160), (70, 130, 230), (100, 150, 240)),
    "yellow": ((255, 255, 0), (250, 220, 50), (245, 230, 90), (255, 215, 0), (240, 225, 60)),
    "purple": ((128, 0, 128), (140, 60, 180), (110, 40, 160), (150, 80, 200), (160, 32, 240)),
    "orange": ((255, 165, 0), (250, 140, 30), (255, 128, 0), (240, 130, 50), (235, 120, 20)),
    "pink": ((255, 192, 203), (255, 160, 190), (250, 130, 180), (255, 105, 180), (245, 170, 200)),
    "white": ((255, 255, 255), (250, 250, 250), (245, 245, 245), (240, 240, 242), (248, 246, 242)),
    "gray": ((128, 128, 128), (150, 150, 150), (110, 112, 115), (165, 165, 165), (140, 140, 145)),
    "black": ((0, 0, 0), (15, 15, 15), (25, 25, 28), (35, 35, 35), (10, 10, 20)),
    "brown": ((120, 70, 30), (139, 69, 19), (110, 60, 35), (150, 90, 50), (165, 42, 42)),
    "teal": ((0, 128, 128), (20, 150, 150), (0, 110, 115), (40, 160, 155), (30, 140, 135)),
}


def plural(kind: str) -> str:
    """The plural of a kind: ``cat`` → ``cats``, ``bus`` → ``buses``."""
    return IRREGULAR_PLURALS.get(kind, kind + "s")


def with_article(noun: str) -> str:
    """``a cat``, ``an apple``."""
    return ("an " if noun[0] in "aeiou" else "a ") + noun


def counted(kind: str, count: int) -> str:
    """``a cat`` for one, ``two cats`` for more."""
    return with_article(kind) if count == 1 else f"{NUMBERS[count]} {plural(kind)}"


def groups(kinds: Iterable[str]) -> list[tuple[str, int]]:
    """Kinds with their counts, by falling count, then in the order of ``KINDS``."""
    counts = Counter(kinds)
    return sorted(counts.items(), key=lambda item: (-item[1], KINDS.index(item[0])))


def listed(phrases: Sequence[str]) -> str:
    """``x``, ``x and y``, ``x, y and z``."""
    return " and ".join([", ".join(phrases[:-1]), phrases[-1]]) if len(phrases) > 1 else phrases[0]


def object_list(kinds: Iterable[str]) -> str:
    """``two cats, a pizza and an apple``."""
    return listed([counted(kind, count) for kind, count in groups(kinds)])


def caption(kinds: Iterable[str], background: str) -> str:
    """``two cats, a pizza and an apple on a blue background``."""
    return f"{object_list(kinds)} on {with_article(background)} background"
