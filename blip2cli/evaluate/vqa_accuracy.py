"""VQA accuracy: the official formula and rules of ``vqaEval.py`` (GT-Vision-Lab/VQA).

An answer scores the mean, over the sets of all answers of people but one, of a third of the
answers there that are the same, at most 1. Before that answers are processed, with what looks like
slips of the original, as published figures hold them:

* a mark of punctuation is removed where a blank is beside it, or a comma between two digits stands
  anywhere in the text; else it becomes a blank;
* a full stop goes unless a digit follows; what should have spared those behind a digit does not,
  and 32 at most go (a flag of ``re`` stands where the count belongs);
* "none" is the number 0, and contractions get their apostrophe but for "im", "ive", "id've";
  "somebody'd" loses it.

There are two versions. Since March 2021 (commit a013f00) the answer and those of people are
processed, both where people disagree and neither where all say the same. Before (2017, as LAVIS's
copy still has it) the answer always is, and theirs only lose punctuation, where they disagree: so a
true "none" or "two" is never met.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_MARKS = frozenset(';/[]"{}()=+\\_-><@`,?!')
_COMMA_IN_NUMBER = re.compile(r"\d,\d")
_STOP = re.compile(r"\.(?!\d)")
_MOST_STOPS = 32  # int(re.UNICODE)
_NUMBERS = "zero one two three four five six seven eight nine ten"
_DIGITS = {word: str(number) for number, word in enumerate(_NUMBERS.split())} | {"none": "0"}
_ARTICLES = frozenset(("a", "an", "the"))
# Words with apostrophes; they are also known with one of these missing.
_CONTRACTIONS = (
    "ain't aren't can't could've couldn't couldn't've didn't doesn't don't hadn't "
    "hadn't've hasn't haven't he'd he'd've he's how'd how'll how's I'd've I'm I've isn't "
    "it'd it'd've it'll ma'am mightn't mightn't've might've mustn't must've needn't "
    "not've o'clock oughtn't 'ow's'at shan't she'd've should've shouldn't shouldn't've "
    "somebody'd've somebody'll somebody's someone'd someone'd've someone'll someone's "
    "something'd something'd've something'll that's there'd there'd've there're there's "
    "they'd they'd've they'll they're they've 'twas wasn't we'd've we've weren't what'll "
    "what're what's what've when's where'd where's where've who'd who'd've who'll who's "
    "who've why'll why're why's won't would've wouldn't wouldn't've y'all y'all'll "
    "y'all'd've you'd you'd've you'll you're you've"
)
_WITH_APOSTROPHES = {
    word[:at] + word[at + 1 :]: word
    for word in _CONTRACTIONS.split()
    for at, character in enumerate(word)
    if character == "'"
} | {"somebody'd": "somebodyd"}
FEWEST_ANSWERS = 4  # of people, for the formula to mean something


def vqa_score(answer: str, theirs: Sequence[str]) -> float:
    """The score of an answer by the rules since 2021; ``theirs`` are the answers of people."""
    answer, people = _one_line(answer), [_one_line(text) for text in theirs]
    if len(set(people)) > 1:
        answer = process_answer(answer)
        people = [process_answer(text) for text in people]
    return _agreement(answer, people)


def vqa_score_2017(answer: str, theirs: Sequence[str]) -> float:
    """The score of an answer by the rules of 2017."""
    answer = process_answer(_one_line(answer))
    people = list(theirs)
    if len(set(people)) > 1:
        people = [strip_punctuation(text) for text in people]
    return _agreement(answer, people)


def process_answer(text: str) -> str:
    """Without punctuation and articles, numbers as digits, contractions with apostrophes."""
    words = (_DIGITS.get(word, word) for word in strip_punctuation(text).lower().split())
    return " ".join(_WITH_APOSTROPHES.get(word, word) for word in words if word not in _ARTICLES)


def strip_punctuation(text: str) -> str:
    """Without marks and full stops, as the original removes them."""
    marks = _MARKS.intersection(text)
    if marks:
        in_number = _COMMA_IN_NUMBER.search(text) is not None
        table = {
            ord(mark): "" if in_number or mark + " " in text or " " + mark in text else " "
            for mark in marks
        }
        text = text.translate(table)
    return _STOP.sub("", text, count=_MOST_STOPS) if "." in text else text


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _agreement(answer: str, people: Sequence[str]) -> float:
    """The mean over all sets of ``people`` but one."""
    same, total = people.count(answer), len(people)
    if not total:
        return 0.0
    without_same, without_other = min(1.0, (same - 1) / 3), min(1.0, same / 3)
    return (same * without_same + (total - same) * without_other) / total
