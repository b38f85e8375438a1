"""BLEU-1 to BLEU-4 over a corpus, with the closest length of a reference (Papineni et al., 2002).

As in the COCO caption evaluation: the length of the reference that is closest counts, the shorter
one of two; no smoothing but constants that keep divisions finite.
"""

from __future__ import annotations

import numpy as np

from blip2cli.evaluate.caption_tokens import ORDERS, CaptionChunk, CaptionTokens, by_image
from blip2cli.evaluate.key_index import Numbers

NAMES = tuple(f"bleu{n}" for n in range(1, ORDERS + 1))
WIDTH = 2 * ORDERS + 2  # matches and n-grams of each order, words, words of the reference
_TINY, _SMALL = 1e-15, 1e-9  # those of the original


def statistics(tokens: CaptionTokens) -> Numbers:
    """Counts of each image, float32[images, WIDTH]; those of several images are summed."""
    found = np.zeros((len(tokens), WIDTH), np.float32)
    for chunk in tokens.chunks():
        rows = found[chunk.start : chunk.start + chunk.size]
        rows[:, :ORDERS] = _matches(chunk)
        words = chunk.candidates.lengths
        for order in range(ORDERS):
            rows[:, ORDERS + order] = np.maximum(words - order, 0)
        rows[:, -2] = words
        rows[:, -1] = _closest(words, chunk)
    return found


def figures(sums: Numbers) -> Numbers:
    """BLEU-1 to BLEU-4 of summed statistics, ``[..., WIDTH]`` → ``[..., 4]``."""
    precisions = (sums[..., :ORDERS] + _TINY) / (sums[..., ORDERS : 2 * ORDERS] + _SMALL)
    means = np.cumprod(precisions, axis=-1) ** (1 / np.arange(1, ORDERS + 1))
    ratio = (sums[..., -2:-1] + _TINY) / (sums[..., -1:] + _SMALL)
    penalty = np.exp(np.minimum(0, 1 - 1 / ratio))
    scores: Numbers = means * penalty
    return scores


def _matches(chunk: CaptionChunk) -> Numbers:
    """N-grams of each candidate that are in a reference, as often as in one: ``[images, 4]``."""
    ours, theirs = chunk.candidates, chunk.references
    keys = by_image(theirs.key, chunk.owners[theirs.sentence])
    order = np.argsort(keys)
    keys = keys[order]
    starts = np.flatnonzero(np.diff(keys, prepend=keys[:1] + np.uint64(1)) != 0)
    most = np.maximum.reduceat(theirs.count[order], starts) if len(starts) else np.zeros(0, int)
    at, there = find_sorted(keys[starts], by_image(ours.key, ours.sentence))
    matched = np.where(there, np.minimum(ours.count, most[at] if len(most) else 0), 0)
    cells = ours.sentence * ORDERS + ours.order
    return np.bincount(cells, matched, chunk.size * ORDERS).reshape(-1, ORDERS)


def find_sorted(keys: Numbers, wanted: Numbers) -> tuple[Numbers, Numbers]:
    """Where the ``wanted`` are among sorted ``keys``, and whether they are there."""
    if not len(keys):
        return np.zeros(len(wanted), np.int64), np.zeros(len(wanted), bool)
    at = np.minimum(np.searchsorted(keys, wanted), len(keys) - 1)
    return at, keys[at] == wanted


def _closest(words: Numbers, chunk: CaptionChunk) -> Numbers:
    """The length of the reference that is closest to each candidate's."""
    lengths = chunk.references.lengths
    distance = np.abs(lengths - words[chunk.owners])
    order = np.lexsort((lengths, distance, chunk.owners))
    _, first = np.unique(chunk.owners[order], return_index=True)
    closest: Numbers = lengths[order][first]
    return closest
