"""ROUGE-L of captions: the longest common subsequence of words (Lin, 2004).

As in the COCO caption evaluation: the best precision and the best recall over the references, of
different ones if need be, and recall weighs 1.2 squared. A text without words is one empty word.
"""

from __future__ import annotations

import numpy as np

from blip2cli.evaluate.caption_tokens import CaptionTokens
from blip2cli.evaluate.key_index import Numbers

_BETA2 = 1.2**2


def scores(tokens: CaptionTokens) -> Numbers:
    """The score of each image, float64."""
    found = np.zeros(len(tokens))
    ours, theirs = tokens.candidates, tokens.references
    our_ids, our_ends = ours.ids.tolist(), ours.ends.tolist()
    ids, ends = theirs.ids.tolist(), theirs.ends.tolist()
    first = tokens.first.tolist()
    for image in range(len(tokens)):
        candidate = our_ids[our_ends[image] : our_ends[image + 1]] or [-1]
        places: dict[int, int] = {}
        for at, word in enumerate(candidate):
            places[word] = places.get(word, 0) | 1 << at
        precision = recall = 0.0
        for number in range(first[image], first[image + 1]):
            reference = ids[ends[number] : ends[number + 1]] or [-1]
            common = _common(places, len(candidate), reference)
            precision = max(precision, common / len(candidate))
            recall = max(recall, common / len(reference))
        if precision:
            found[image] = (1 + _BETA2) * precision * recall / (recall + _BETA2 * precision)
    return found


def _common(places: dict[int, int], length: int, words: list[int]) -> int:
    """The length of the longest common subsequence (Hyyrö, 2004): one step a word.

    ``places`` are the positions of each word in the other text, as bits.
    """
    everywhere = (1 << length) - 1
    open_places = everywhere
    for word in words:
        here = open_places & places.get(word, 0)
        open_places = (open_places + here | open_places - here) & everywhere
    return length - open_places.bit_count()
