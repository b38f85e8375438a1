"""Texts that say nothing: recognised by their words alone, whatever model wrote them.

* ``empty``: no letter, digit or symbol in it.
* ``echo``: it says the question again, or begins with it, or with the caption's own prompt.
* ``repetition``: it runs in a loop.

The rules are to leave alone what people write: "two red balls and two green balls", "a cat and a
cat", "very, very tall". A row is judged by itself, so a flag never depends on the batch.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from typing import Literal

Flag = Literal["", "empty", "echo", "repetition", "retried"]

# A run of N words that stands so often in a row is a loop. One word is said three times for
# emphasis ("a very, very, very tall tree"), and a run of four or more never twice by intention.
_LOOPS = {1: 4, 2: 3, 3: 3}
_LONG_LOOP = 2
# Whisper's threshold, and its measure: bytes over compressed bytes (github.com/openai/whisper,
# transcribe.py). Below a hundred bytes zlib's own overhead hides what repeats, and the loops above
# see more.
_COMPRESSION = 2.4
_COMPRESSIBLE = 100
# The share of runs of four words that were there before: seq-rep-4 of Welleck et al.
# (arXiv 1908.04319), where texts by people have next to none. It sees loops that change a word now
# and then. Below sixteen words a share says little.
_RUN = 4
_RUN_SHARE = 0.35
_RUN_WORDS = 16
# Scripts without blanks have no words to count: a few characters, over and over. Numbers such as
# 100000000000 have up to a dozen zeros.
_STUTTER = re.compile(r"(\S{1,4}?)\1{15,}")
# "a dog?" may be answered with "a dog"; three words of a question are not said again by chance.
_ECHO_WORDS = 3

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def flag_of(text: str, asked: str | None = None) -> Flag:
    """What is wrong with ``text``, as the answer to ``asked`` (or what goes on from it).

    The empty string when nothing is.
    """
    if is_empty(text):
        return "empty"
    if asked is not None and echoes(text, asked):
        return "echo"
    if repeats(text):
        return "repetition"
    return ""


def is_empty(text: str) -> bool:
    """Whether there is nothing but white space, punctuation and control characters."""
    return all(unicodedata.category(character)[0] in "ZPC" for character in text)


def echoes(text: str, asked: str) -> bool:
    """Whether ``text`` holds ``asked``, or is the beginning of it and at least half of it.

    A question that offers its answer ("is it a red car or a blue car?") has it at its end.
    """
    answer, question = words(text), words(asked)
    if len(question) >= _ECHO_WORDS and _contains(answer, question):
        return True
    begun = len(answer) >= max(_ECHO_WORDS, len(question) / 2)
    return begun and answer == question[: len(answer)]


def repeats(text: str) -> bool:
    """Whether ``text`` runs in a loop."""
    said = words(text)
    if _loops(said) or _STUTTER.search(text):
        return True
    if len(said) >= _RUN_WORDS:
        runs = [tuple(said[i : i + _RUN]) for i in range(len(said) - _RUN + 1)]
        if 1 - len(set(runs)) / len(runs) > _RUN_SHARE:
            return True
    data = text.encode("utf-8", "surrogatepass")
    return len(data) >= _COMPRESSIBLE and len(data) / len(zlib.compress(data)) > _COMPRESSION


def words(text: str) -> list[str]:
    """The words of ``text``, without case and punctuation."""
    return _WORD.findall(unicodedata.normalize("NFC", text).casefold())


def _loops(said: Sequence[str]) -> bool:
    """Whether some run of words stands several times in a row."""
    for size in range(1, len(said) // 2 + 1):
        needed = _LOOPS.get(size, _LONG_LOOP)
        same = 0  # words in a row that equal the one ``size`` words before
        for place in range(size, len(said)):
            same = same + 1 if said[place] == said[place - size] else 0
            if same >= size * (needed - 1):
                return True
    # "no no no", and nothing else; the time 12:12:12 is fine.
    return len(said) == 3 and len(set(said)) == 1 and not said[0].isdigit()


def _contains(whole: Sequence[str], part: Sequence[str]) -> bool:
    last = len(whole) - len(part)
    return any(whole[i : i + len(part)] == part for i in range(last + 1))
