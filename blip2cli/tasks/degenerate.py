"""Degenerate texts, recognised by their words, whatever model generated them.

* ``empty``: no letter, digit or symbol in it.
* ``echo``: it repeats the question, or begins with it, or with the caption's own prompt.
* ``repetition``: it is a loop.

The rules must not flag what people write: "two red balls and two green balls", "a cat and a
cat", "very, very tall". The flag of a row depends on its own text only.
"""

from __future__ import annotations

import re
import unicodedata
import zlib
from collections.abc import Sequence
from typing import Literal

Flag = Literal["", "empty", "echo", "repetition", "retried"]

# Repetitions in a row from which a run of N words is a loop. One word comes three times for
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
# "a dog?" may be answered with "a dog"; three words of a question are not repeated by chance.
_ECHO_WORDS = 3

_WORD = re.compile(r"[^\W_]+(?:['’][^\W_]+)*")


def flag_of(text: str, source: str | None = None) -> Flag:
    """The flag of ``text`` as the answer to, or the continuation of, ``source``; "" for none."""
    # Nothing but white space (Z), punctuation (P) and control characters (C).
    if all(unicodedata.category(character)[0] in "ZPC" for character in text):
        return "empty"
    tokens = words(text)
    if source is not None and echoes(tokens, words(source)):
        return "echo"
    if repeats(text, tokens):
        return "repetition"
    return ""


def words(text: str) -> list[str]:
    """The words of ``text``, without case and punctuation."""
    return _WORD.findall(unicodedata.normalize("NFC", text).casefold())


def echoes(answer: Sequence[str], question: Sequence[str]) -> bool:
    """Whether the words ``answer`` hold those of ``question``, or are the first half or more.

    A question that offers its answer ("is it a red car or a blue car?") has it at its end.
    """
    if len(question) >= _ECHO_WORDS and any(
        answer[i : i + len(question)] == question for i in range(len(answer) - len(question) + 1)
    ):
        return True
    long_enough = len(answer) >= max(_ECHO_WORDS, len(question) / 2)
    return long_enough and answer == question[: len(answer)]


def repeats(text: str, tokens: Sequence[str]) -> bool:
    """Whether ``text``, of the words ``tokens``, is a loop."""
    for size in range(1, len(tokens) // 2 + 1):
        needed = _LOOPS.get(size, _LONG_LOOP)
        same = 0  # words in a row that equal the one ``size`` words before
        for place in range(size, len(tokens)):
            same = same + 1 if tokens[place] == tokens[place - size] else 0
            if same >= size * (needed - 1):
                return True
    # "no no no", and nothing else; the time 12:12:12 is fine.
    if len(tokens) == 3 and len(set(tokens)) == 1 and not tokens[0].isdigit():
        return True
    if _STUTTER.search(text):
        return True
    if len(tokens) >= _RUN_WORDS:
        runs = [tuple(tokens[i : i + _RUN]) for i in range(len(tokens) - _RUN + 1)]
        if 1 - len(set(runs)) / len(runs) > _RUN_SHARE:
            return True
    data = text.encode("utf-8", "surrogatepass")
    return len(data) >= _COMPRESSIBLE and len(data) / len(zlib.compress(data)) > _COMPRESSION
