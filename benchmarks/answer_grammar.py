"""Answers from a written grammar: what people and models answer about pictures, and worse.

Used to compare ``vqa`` with the official evaluation.
"""

from __future__ import annotations

import random


def _words(text: str) -> list[str]:
    return text.split()


_WORDS = _words(
    "yes no red blue man woman dog cat pizza none zero one two three ten eleven a an the "
    "an apple dont don't isnt wouldn't've wouldntve wouldnt've im ive id've Im Ive "
    "somebody'd somebodyd lets let's shes she's y'all yall yalld've oclock o'clock "
    "'ow's'at left-right t-shirt Nike 5 10 10.5 1,000 2.0 3. .5 1.2.3 10:30 $5 50% u.s. "
    "U.S.A. st. mr. a.m. ½ ２ café"
)
_MARKS = list(";/[]\"{}()=+\\_-><@`,?!.'&*:#%")


def pairs(count: int, seed: int = 0) -> list[tuple[str, list[str]]]:
    """An answer and those of ten people, as often alike as not."""
    source = random.Random(seed)
    return [_pair(source) for _ in range(count)]


def _pair(source: random.Random) -> tuple[str, list[str]]:
    common = [_answer(source) for _ in range(source.randint(1, 4))]
    people = [source.choice(common) for _ in range(10)]
    if source.random() < 0.3:
        people = [_varied(text, source) for text in people]
    if source.random() < 0.15:
        people = [people[0]] * 10
    answer = source.choice(people) if source.random() < 0.7 else _answer(source)
    return (_varied(answer, source) if source.random() < 0.5 else answer), people


def _answer(source: random.Random) -> str:
    text = " ".join(source.choice(_WORDS) for _ in range(source.choice((1, 1, 1, 2, 2, 3, 5))))
    if source.random() < 0.02:
        text = "." * source.randint(30, 40) + text
    return text


def _varied(text: str, source: random.Random) -> str:
    for _ in range(source.randint(0, 2)):
        at = source.randint(0, len(text))
        mark = source.choice(_MARKS)
        insert = source.choice(
            (mark, f" {mark}", f"{mark} ", f" {mark} ", "\n", "\t", "  ", "the ")
        )
        text = text[:at] + insert + text[at:]
    case = source.random()
    return text.upper() if case < 0.1 else text.capitalize() if case < 0.3 else text
