"""CIDEr as the COCO caption evaluation has it, which is CIDEr-D (Vedantam et al., 2015).

N-grams are weighed by how few images' references hold them, counts are clipped, and a Gaussian of
the difference in length (in pairs of words, sigma 6) punishes repetition. One image alone gives 0:
every n-gram is in all images then.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np

from blip2cli.evaluate.bleu import find_sorted
from blip2cli.evaluate.caption_tokens import ORDERS, CaptionTokens, NGrams, by_image
from blip2cli.evaluate.key_index import Numbers

_SIGMA = 6.0
FEWEST_IMAGES = 50  # below it the weights of n-grams say little


def scores(tokens: CaptionTokens) -> Numbers:
    """The score of each image, float64; their mean is CIDEr."""
    frequencies = DocumentFrequencies.of(tokens)
    found = np.zeros(len(tokens))
    for chunk in tokens.chunks():
        ours, theirs, owners = chunk.candidates, chunk.references, chunk.owners
        our_weights = frequencies.weights(ours)
        weights = frequencies.weights(theirs)
        our_keys = by_image(ours.key, ours.sentence)
        order = np.argsort(our_keys)
        at, there = find_sorted(our_keys[order], by_image(theirs.key, owners[theirs.sentence]))
        matched = np.where(there, our_weights[order[at]] if len(order) else 0.0, 0.0)
        products = np.minimum(matched, weights) * weights
        texts = len(owners)
        cosines = _by_sentence(theirs, products, texts)
        norms = np.sqrt(_by_sentence(theirs, weights**2, texts))
        our_norms = np.sqrt(_by_sentence(ours, our_weights**2, chunk.size))[owners]
        divisor = norms * our_norms
        np.divide(cosines, divisor, out=cosines, where=divisor != 0)
        pairs = np.maximum(ours.lengths - 1, 0)[owners] - np.maximum(theirs.lengths - 1, 0)
        cosines *= np.exp(-(pairs**2.0) / (2 * _SIGMA**2))[:, None]
        sums = np.bincount(owners, cosines.mean(axis=1), chunk.size)
        count = np.bincount(owners, minlength=chunk.size)
        found[chunk.start : chunk.start + chunk.size] = 10 * sums / count
    return found


def _by_sentence(ngrams: NGrams, values: Numbers, sentences: int) -> Numbers:
    """Sums of values over the n-grams of each sentence and order, ``[sentences, 4]``."""
    cells = ngrams.sentence * ORDERS + ngrams.order
    return np.bincount(cells, values, sentences * ORDERS).reshape(-1, ORDERS)


class DocumentFrequencies:
    """In how many images' references each n-gram is: 16 bytes an n-gram."""

    def __init__(self, keys: Numbers, counts: Numbers, images: int) -> None:
        self._keys, self._counts, self._images = keys, counts, images

    @classmethod
    def of(cls, tokens: CaptionTokens) -> DocumentFrequencies:
        """Count the n-grams of all references."""
        keys, counts = np.zeros(0, np.uint64), np.zeros(0, np.int64)
        waiting: list[Numbers] = []
        for found in _keys_of_images(tokens):
            waiting.append(found)
            if sum(map(len, waiting)) > max(1 << 22, len(keys)):
                keys, counts = _merged(keys, counts, waiting)
                waiting = []
        return cls(*_merged(keys, counts, waiting), len(tokens))

    def weights(self, ngrams: NGrams) -> Numbers:
        """Term frequency times inverse document frequency of each n-gram, float64."""
        at, there = find_sorted(self._keys, ngrams.key)
        counts = np.where(there, self._counts[at] if len(self._counts) else 1, 1)
        weights: Numbers = ngrams.count * (np.log(self._images) - np.log(counts))
        return weights


def _keys_of_images(tokens: CaptionTokens) -> Iterator[Numbers]:
    """The keys of the n-grams of references, each once an image."""
    for chunk in tokens.chunks():
        key = chunk.references.key
        image = chunk.owners[chunk.references.sentence]
        _, at = np.unique(by_image(key, image), return_index=True)
        yield key[at]


def _merged(keys: Numbers, counts: Numbers, more: list[Numbers]) -> tuple[Numbers, Numbers]:
    new, new_counts = np.unique(np.concatenate([np.zeros(0, np.uint64), *more]), return_counts=True)
    all_keys, at = np.unique(np.concatenate([keys, new]), return_inverse=True)
    sums = np.bincount(at, np.concatenate([counts, new_counts]), len(all_keys))
    return all_keys, sums.astype(np.int64)
