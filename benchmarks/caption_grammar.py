"""Captions from a written grammar: what people write about pictures, and how.

The tokenizer of ``evaluate`` is compared with the original one on these captions. What the grammar
does not have (emoji, entities, other scripts) is read otherwise in places, see
``docs/guides/evaluate.md``.
"""

from __future__ import annotations

import random
from collections.abc import Callable


def _words(text: str) -> list[str]:
    return text.split()


_NOUNS = _words(
    "man woman boy girl dog cat horse bus train pizza table street beach surfboard "
    "kitchen plate sandwich clock tower skateboard giraffe zebra elephant umbrella bench "
    "laptop bear kite boat"
)
_OTHERS = _words(
    "a the an two three several many red blue green large small wooden young old sitting "
    "standing riding holding eating playing looking on in of with next to near under over "
    "by and or while"
)
_CONTRACTIONS = _words(
    "isn't don't can't won't doesn't aren't wasn't couldn't it's he's she's that's "
    "there's they're we're you're i'm i've they've we'll i'd he'd o'clock ma'am y'all 'em "
    "'til let's who's ain't rock'n'roll don’t it’s they’re couldn't've cannot Cannot "
    "gonna wanna gotta gimme lemme 'tis"
)
_HYPHENED = _words(
    "black-and-white t-shirt close-up well-lit x-ray 12-year-old two-story 3-d e-mail "
    "u.s.-based mother-in-law half-eaten 1950s-style stop-sign multi-colored 3.5-inch "
    "1,000-year-old pro-am fire-hydrant's ex-wife’s bent-over- -like"
)
_SHORT = _words(
    "mr. mrs. dr. st. ave. jr. sr. ms. vs. etc. u.s. U.S. u.s.a. a.m. p.m. e.g. i.e. no. "
    "inc. co. ltd. mt. ft. dept. approx. Jan. Sept. Mass. washington d.c. ph.d. j.p. "
    "Bros. fig."
)
_ODD = _words(
    "½ ¼ ¾ 1/2 3/4 1½ 2½-inch 50% 100% $5 $3.50 £5 €10 #1 #winning @home & AT&T at&t b&w "
    "r&b c&d + = * / a/b and/or his/her 24/7 9/11 @ # % ~ 20° 72°F ® ™ © café naïve "
    "piñata Über crème jalapeño 東京 été façade <3 > < | \\ ^ _ __ snake_case 2x4 4x4 5'2\" "
    "6' 10\" :) ;-) =( :D l'amour d'artagnan o'brien O'Reilly's c'mon '90s 90's 1990's "
    "20s' rock 'n' roll … × ²"
)
_MARKS = _words(
    ". . . . . . , , , ; : ? ! !! ?! ... .... .. - -- --- – — ' \" '' `` ` ., !, ). (. ,,"
)
_QUOTES = (('"', '"'), ("'", "'"), ("``", "''"), ("`", "'"), ("“", "”"), ("‘", "’"))
_BRACKETS = (("(", ")"), ("[", "]"), ("{", "}"))


def captions(count: int, seed: int = 0) -> list[str]:
    """Captions of one to about twenty words; some are empty or only punctuation."""
    source = random.Random(seed)
    return [_caption(source) for _ in range(count)]


def plain_captions(count: int, seed: int = 0) -> list[str]:
    """Captions of plain words, with a full stop or without, as most that models write."""
    source = random.Random(seed)
    return [
        " ".join(_plain(source) for _ in range(source.randint(4, 14)))
        + source.choice(("", ".", " ."))
        for _ in range(count)
    ]


def _caption(source: random.Random) -> str:
    if source.random() < 0.005:
        return source.choice(("", " ", ".", "...", "?!", "-", "( )"))
    words = [_word(source) for _ in range(source.randint(1, 18))]
    text = " ".join(words)
    if source.random() < 0.5:
        text = text[:1].upper() + text[1:]
    if source.random() < 0.05:
        text = text.upper()
    return text + source.choices(("", ".", " ."), (0.3, 0.5, 0.2))[0]


def _word(source: random.Random) -> str:
    kinds: tuple[tuple[float, Callable[[random.Random], str]], ...] = (
        (0.62, _plain),
        (0.06, lambda s: s.choice(_CONTRACTIONS)),
        (0.06, lambda s: s.choice(_HYPHENED)),
        (0.04, lambda s: s.choice(_SHORT)),
        (0.05, _number),
        (0.05, lambda s: s.choice(_ODD)),
        (0.04, lambda s: _plain(s) + s.choice(("'s", "s'", "'s", "’s", "'S"))),
        (0.03, lambda s: s.choice(_MARKS)),
        (0.02, _joined),
        (0.03, _plain),
    )  # fmt: skip
    word = source.choices([make for _, make in kinds], [share for share, _ in kinds])[0](source)
    case = source.random()
    if case < 0.06:
        word = word.capitalize()
    elif case < 0.08:
        word = word.upper()
    if source.random() < 0.05:
        left, right = source.choice(_QUOTES)
        word = left + word + (" " + _plain(source) if source.random() < 0.3 else "") + right
    if source.random() < 0.03:
        left, right = source.choice(_BRACKETS)
        word = left + word + right
    if source.random() < 0.09:
        word += source.choice(_MARKS)
    return word


def _joined(source: random.Random) -> str:
    link = source.choice(("/", "-", "--", "...", "&", "+", ":", "_"))
    return _plain(source) + link + _plain(source)


def _plain(source: random.Random) -> str:
    return source.choice(_NOUNS if source.random() < 0.35 else _OTHERS)


def _number(source: random.Random) -> str:
    number = source.randint(0, 2050)
    return source.choice(
        (
            str(number),
            f"{number:,}",
            f"{number / 10}",
            f"{number}th",
            f"{number % 12 + 1}:{number % 60:02}",
            f"{number % 12 + 1}:{number % 60:02}pm",
            f"{number % 12}pm",
            f"{number}'s",
            f"{number}-{number + 2}",
            f"{number % 12 + 1}/{number % 28 + 1}/{number}",
            f"-{number}",
            f"+{number}.5",
            f".{number}",
            f"{number},000,000",
            f"{number}cm",
        )
    )


def corpus(images: int, seed: int = 0) -> list[tuple[str, list[str]]]:
    """Candidates and references of images, half from the grammar and half of plain words.

    Four candidates of ten are near to a reference, as those of models are.
    """
    source = random.Random(seed)
    texts = captions(3 * images + images // 2, seed + 1) + plain_captions(3 * images, seed + 2)
    source.shuffle(texts)
    found = []
    for _ in range(images):
        references = [texts.pop() for _ in range(source.randint(1, 5))]
        words = references[0].split()
        if source.random() < 0.4 and len(words) > 2:
            words.pop(source.randrange(len(words)))
            candidate = " ".join(words)
        else:
            candidate = texts.pop()
        found.append((candidate, references))
    return found
