"""Captions as numbers of words, and their n-grams as 64-bit hashes.

Candidates and references of all images are stored as flat arrays of word numbers. N-grams are
counted with sorted hashes instead of dictionaries: a chunk of images is a handful of NumPy calls.
That two n-grams of ten million share a hash has a chance of 3e-6, and would change a figure in its
eighth digit.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from blip2cli.evaluate.key_index import Codes, Numbers
from blip2cli.evaluate.ptb_tokenizer import tokenize

ORDERS = 4  # n-grams of one to four words
_ODD = np.uint64(0x9E3779B97F4A7C15)  # the golden ratio's
CHUNK = 2048  # images whose n-grams are counted together


class Sentences:
    """Texts as word numbers, one after the other."""

    def __init__(self, words: Codes) -> None:
        self._words = words
        self._ids = array("i")
        self._ends = array("q", [0])
        self._waiting: str | None = None

    def add(self, text: str) -> None:
        """Append a text. It is tokenized once the one behind it is known."""
        if self._waiting is not None:
            self._append(self._waiting, text)
        self._waiting = text

    def end(self) -> None:
        """All texts are here."""
        if self._waiting is not None:
            self._append(self._waiting, "")
        self._waiting = None

    def _append(self, text: str, following: str) -> None:
        self._ids.extend(map(self._words.of, tokenize(text, following)))
        self._ends.append(len(self._ids))

    @property
    def ids(self) -> Numbers:
        """All word numbers, int32."""
        return np.frombuffer(self._ids, np.int32) if self._ids else np.zeros(0, np.int32)

    @property
    def ends(self) -> Numbers:
        """Where each text begins, and the last one ends: int64[texts + 1]."""
        return np.frombuffer(self._ends, np.int64)


@dataclass(frozen=True)
class CaptionTokens:
    """One candidate and its references for each image."""

    words: Codes
    candidates: Sentences
    references: Sentences
    first: Numbers  # int64[images + 1], the first reference of each image

    def __len__(self) -> int:
        return len(self.first) - 1

    @classmethod
    def of(cls, pairs: Iterable[tuple[str, Sequence[str]]]) -> CaptionTokens:
        """Tokenize candidates and the references of each."""
        words = Codes()
        candidates, references = Sentences(words), Sentences(words)
        first = array("q", [0])
        for candidate, texts in pairs:
            candidates.add(candidate)
            for text in texts:
                references.add(text)
            first.append(first[-1] + len(texts))
        candidates.end()
        references.end()
        return cls(words, candidates, references, np.frombuffer(first, np.int64))

    def chunks(self) -> Iterator[CaptionChunk]:
        """Yield some images at a time."""
        split = self._words_inside()
        for start in range(0, len(self), CHUNK):
            end = min(start + CHUNK, len(self))
            first = self.first[start : end + 1]
            owners = np.repeat(np.arange(end - start), np.diff(first))
            yield CaptionChunk(
                start,
                end - start,
                _ngrams(self.candidates, start, end, split),
                _ngrams(self.references, int(first[0]), int(first[-1]), split),
                owners,
            )

    def _words_inside(self) -> dict[int, list[int]]:
        """Tokens with blanks in them ("1 1/2"), and the words that n-grams see there."""
        spaced = [(n, word.split()) for n, word in enumerate(list(self.words.keys()))
                  if len(word.split()) > 1]  # fmt: skip
        return {number: [self.words.of(each) for each in words] for number, words in spaced}


@dataclass(frozen=True)
class NGrams:
    """The distinct n-grams of some sentences; all arrays but ``lengths`` have one length."""

    sentence: Numbers  # int64
    order: Numbers  # int64, from 0
    key: Numbers  # uint64, equal for equal n-grams
    count: Numbers  # int64, in its sentence
    lengths: Numbers  # int64, words of each sentence


@dataclass(frozen=True)
class CaptionChunk:
    """The n-grams of some images."""

    start: int  # the first image
    size: int
    candidates: NGrams  # sentence i is that of image ``start + i``
    references: NGrams
    owners: Numbers  # int64, of each reference the image, counted from ``start``


def by_image(key: Numbers, image: Numbers) -> Numbers:
    """Keys that are equal for equal n-grams of the same image only."""
    # Far from the numbers of words, which are mixed the same way.
    return _mix(key ^ _mix(image.astype(np.uint64) + np.uint64(1 << 62)))


def _ngrams(sentences: Sentences, start: int, end: int, split: dict[int, list[int]]) -> NGrams:
    ends = sentences.ends[start : end + 1]
    ids = sentences.ids[ends[0] : ends[-1]]
    lengths = np.diff(ends)
    if split and np.isin(ids, list(split)).any():
        ids, lengths = _split(ids, lengths, split)
    stops = np.cumsum(lengths)
    sentence = np.repeat(np.arange(end - start), lengths)
    stop = np.repeat(stops, lengths)
    single = _mix(ids.astype(np.uint64))
    keys, owners, orders = [single], [sentence], [np.zeros(len(ids), np.int64)]
    position = np.arange(len(ids))
    key = single
    for order in range(1, ORDERS):
        key = _mix(key[:-1] * _ODD + single[order:])
        inside = position[: len(key)] + order < stop[: len(key)]
        keys.append(key[inside])
        owners.append(sentence[: len(key)][inside])
        orders.append(np.full(int(inside.sum()), order))
    key, owner, order_of = map(np.concatenate, (keys, owners, orders))
    _, at, count = np.unique(by_image(key, owner), return_index=True, return_counts=True)
    return NGrams(owner[at], order_of[at], key[at], count, lengths)


def _split(ids: Numbers, lengths: Numbers, split: dict[int, list[int]]) -> tuple[Numbers, Numbers]:
    sentence = np.repeat(np.arange(len(lengths)), lengths)
    pieces = [split.get(number, [number]) for number in ids.tolist()]
    sizes = np.array([len(piece) for piece in pieces])
    flat = np.array([number for piece in pieces for number in piece], np.int32)
    return flat, np.bincount(np.repeat(sentence, sizes), minlength=len(lengths))


def _mix(values: Any) -> Numbers:
    """SplitMix64's finalizer: a bijection of 64-bit numbers that spreads neighbours."""
    values = values + _ODD
    values = (values ^ (values >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    values = (values ^ (values >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    mixed: Numbers = values ^ (values >> np.uint64(31))
    return mixed
