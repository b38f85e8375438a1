"""Retrieval: scores of images against texts, by the contrastive and the matching head.

Everything is computed as transformers' ``Blip2ForImageTextRetrieval`` computes it for one image
and one text at a time (arXiv 2301.12597, section 3.1), but the vision encoder runs once an image,
however many texts follow.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import normalize

from blip2cli.model.nets.blip2 import RetrievalModel
from blip2cli.model.placement.single_thread import single_threaded
from blip2cli.model.text_reader import Pair, TextReader
from blip2cli.model.tokenizer.text import TextCodec
from blip2cli.model.vision.features import ImageFeatures

__all__ = ["Pair", "Retrieval"]

_CACHED_TEXTS = 1 << 16  # texts whose vectors are cached: 64 MB of them at 256 numbers each


class Retrieval(TextReader):
    """The half of a retrieval model that reads texts, and the heads that compare.

    P is ``image_text_hidden_size``; scores and projections are in float32.
    """

    model: RetrievalModel

    def __init__(
        self,
        model: RetrievalModel,
        codec: TextCodec,
        cached_texts: int = _CACHED_TEXTS,
        shorten: bool = False,
    ) -> None:
        super().__init__(model, codec, shorten)
        # Vectors of texts, which come again with every batch.
        self._projected: dict[str, Tensor] = {}
        self._most_cached = cached_texts

    @single_threaded
    def contrastive_scores(self, features: ImageFeatures, pairs: Sequence[Pair]) -> Tensor:
        """How alike each pair's image and text are: [M], cosines from -1 to 1.

        The largest over the image's queries, as ``logits_per_image`` of
        ``Blip2ForImageTextRetrieval``. Cheap, and the right score to rank many texts or images
        by; only scores of one image (or of one text) are comparable.
        """
        names = list(dict.fromkeys(pair.text for pair in pairs))  # each text is read once
        if not names:
            return torch.zeros(0, device=features.image_embeds.device)
        texts = self._cached(names)
        images = self.project_images(features)
        places = {name: number for number, name in enumerate(names)}
        scores = []
        for start in range(0, len(pairs), self._together):
            chunk = pairs[start : start + self._together]
            rows = images[[pair.image for pair in chunk]]
            scores.append(_contrast(rows, texts[[places[pair.text] for pair in chunk]]))
        return torch.cat(scores)

    def matching_logits(self, features: ImageFeatures, pairs: Sequence[Pair]) -> Tensor:
        """The matching head's two scores for each pair, no and yes: [M, 2].

        The mean over queries, as ``logits_per_image`` of ``Blip2ForImageTextRetrieval`` with
        ``use_image_text_matching_head``.
        """

        def score(rows: Tensor, ids: Tensor, owners: Tensor) -> Tensor:
            states = self.model.encode_pairs(features.image_embeds[rows], ids, owners)
            logits: Tensor = self.model.itm_head(states.to(self.model.dtype)).float()
            return logits.mean(dim=1)

        return self._paired(features, pairs, score, (2,))

    @single_threaded
    def project_images(self, features: ImageFeatures) -> Tensor:
        """Query outputs in the space shared with texts: [B, Q, P], each of length 1.

        ``image_embeds`` of ``Blip2VisionModelWithProjection``.
        """
        head = self.model.vision_projection
        with torch.inference_mode():
            return normalize(head(features.query_output.to(self.model.dtype)), dim=-1).float()

    def project_texts(self, texts: Sequence[str]) -> Tensor:
        """Texts in the space shared with images: [N, P], each of length 1.

        The class token's row of ``text_embeds`` of ``Blip2TextModelWithProjection``, which is
        what the contrastive score looks at.
        """
        return torch.stack([rows[0] for rows in self.project_tokens(texts)])

    def _cached(self, texts: Sequence[str]) -> Tensor:
        """``project_texts``, of each text once."""
        cache = self._projected
        known = {text: cache[text] for text in texts if text in cache}
        new = [text for text in texts if text not in known]
        if new:
            fresh = dict(zip(new, self.project_texts(new), strict=True))
            known |= fresh
            # When full, another takes its place: emptied under other threads it would fail them.
            if len(cache) + len(fresh) > self._most_cached:
                self._projected = fresh
            else:
                cache.update(fresh)
        return torch.stack([known[text] for text in texts])

    def project_tokens(self, texts: Sequence[str]) -> list[Tensor]:
        """Every token of each text in the shared space: [T, P] a text, each row of length 1.

        ``text_embeds`` of ``Blip2TextModelWithProjection``.
        """
        head = self.model.text_projection

        def project(ids: Tensor) -> Tensor:
            states = self.model.encode_texts(ids)
            return normalize(head(states.to(self.model.dtype)), dim=-1).float()

        return self._read(texts, project)

    def text_states(self, texts: Sequence[str]) -> list[Tensor]:
        """The Q-Former's last hidden state of each text: [T, Dq] a text.

        ``last_hidden_state`` of ``Blip2TextModelWithProjection``.
        """
        return self._read(texts, lambda ids: self.model.encode_texts(ids).float())


def _contrast(images: Tensor, texts: Tensor) -> Tensor:
    """The largest product of a query's vector with the text's: [M, Q, P], [M, P] to [M].

    Multiplied and summed row by row: the bits of a matrix product depend on the other rows.
    """
    return (images * texts[:, None]).sum(dim=-1).amax(dim=1)
