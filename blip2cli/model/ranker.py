"""A retrieval model beside a model that writes: scores of the texts that were written.

Where both have the same vision encoder it runs once an image: the other's image states are what
this model's Q-Former attends to.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2cli.model.placement.single_thread import single_threaded
from blip2cli.model.retrieval import Pair, Retrieval
from blip2cli.model.vision.features import ImageFeatures
from blip2cli.options import RankBy

if TYPE_CHECKING:
    from blip2cli.model.wrapper import Blip2


class Ranker:
    """``model`` is a retrieval model; with ``shares_vision`` its vision encoder is that of the
    model which computed the features that ``scores`` is given."""

    def __init__(self, model: Blip2, shares_vision: bool) -> None:
        assert model.retrieval is not None
        self.name = model.name
        self.model = model.model
        self.shares_vision = shares_vision
        self.runs_single_threaded = model.runs_single_threaded
        self._wrapper = model
        # A text that is too long is compared by its beginning: a run must not end by one.
        self._retrieval = Retrieval(model.retrieval.model, model.codec, shorten=True)

    def scores(
        self, pixels: Tensor, features: ImageFeatures, pairs: Sequence[Pair], by: RankBy
    ) -> list[float]:
        """How well the text of each pair fits its image, in the pairs' order.

        ``match``: the matching head's probability, 0 to 1; ``contrast``: the cosine, -1 to 1.
        ``pixels`` are uint8 [B, 3, H, W], ``features`` what the other model computed of them.
        """
        distinct = list(dict.fromkeys(pairs))  # what was drawn twice is compared once
        own = features if self.shares_vision else self._wrapper.features(pixels)
        found = dict(zip(distinct, _SCORES[by](self, own, distinct), strict=True))
        return [found[pair] for pair in pairs]

    def _match(self, features: ImageFeatures, pairs: Sequence[Pair]) -> list[float]:
        logits = self._retrieval.matching_logits(features, pairs)
        return [_sigmoid(yes - no) for no, yes in logits.tolist()]

    def _contrast(self, features: ImageFeatures, pairs: Sequence[Pair]) -> list[float]:
        if self.shares_vision:
            features = self._with_own_queries(features)
        cosines: list[float] = self._retrieval.contrastive_scores(features, pairs).tolist()
        return cosines

    @single_threaded
    @torch.inference_mode()
    def _with_own_queries(self, features: ImageFeatures) -> ImageFeatures:
        """The features with the outputs [B, Q, Dq] of this model's Q-Former."""
        embeds = features.image_embeds
        output = self.model.qformer(self.model.query_tokens, embeds).to(embeds.dtype)
        return ImageFeatures(embeds, features.pooled, output, output[..., :0])


_SCORES: dict[RankBy, Callable[[Ranker, ImageFeatures, Sequence[Pair]], list[float]]] = {
    "match": Ranker._match,
    "contrast": Ranker._contrast,
}


def _sigmoid(odds: float) -> float:
    """The probability of log-odds; number by number, since torch's has other bits in other places
    of a tensor."""
    small = math.exp(-abs(odds))
    return (1.0 if odds >= 0 else small) / (1.0 + small)
