"""Retrieval: scores of images against texts, by the contrastive and the matching head.

Everything is computed as transformers' ``Blip2ForImageTextRetrieval`` computes it for one image
and one text at a time (arXiv 2301.12597, section 3.1), but the vision encoder runs once an image,
however many texts follow, and no text is ever padded: texts of equal length run together, so that
a score depends on neither the other texts nor the other images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import normalize

from blip2cli.model.grouping import grouped
from blip2cli.model.layers.streamed import STREAMED_ROWS
from blip2cli.model.limits import check_length
from blip2cli.model.nets.blip2 import RetrievalModel
from blip2cli.model.placement.single_thread import needs_single_thread, single_threaded
from blip2cli.model.tokenizer.text import TextCodec
from blip2cli.model.vision.features import ImageFeatures

# Pairs that go through the Q-Former together: each holds keys and values of its image once more.
_BATCH = 32
_CACHED_TEXTS = 1 << 16  # texts whose vectors are cached: 64 MB of them at 256 numbers each


@dataclass(frozen=True)
class Pair:
    """An image and a text to be compared."""

    image: int  # row in the features
    text: str


class Retrieval:
    """The half of a retrieval model that reads texts, and the heads that compare.

    B images have Q query outputs of width Dq each; P is ``image_text_hidden_size``. All results
    are on the model's device, scores and projections in float32.
    """

    def __init__(
        self,
        model: RetrievalModel,
        codec: TextCodec,
        cached_texts: int = _CACHED_TEXTS,
        shorten: bool = False,
    ) -> None:
        self.model = model
        self.codec = codec
        self._shorten = shorten  # texts that are too long, to their first tokens and the last
        self.runs_single_threaded = needs_single_thread(model)
        # Vectors of texts, which come again with every batch.
        self._projected: dict[str, Tensor] = {}
        self._most_cached = cached_texts
        self._together = _BATCH * (STREAMED_ROWS if model.stream else 1)

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

    def multimodal(self, features: ImageFeatures, pairs: Sequence[Pair]) -> Tensor:
        """The query outputs for an image with a text beside it: [M, Q, Dq].

        What LAVIS's feature extractor calls multimodal: the first Q positions of the Q-Former's
        last hidden state, given query tokens and text together.
        """

        def states(rows: Tensor, ids: Tensor, owners: Tensor) -> Tensor:
            return self.model.encode_pairs(features.image_embeds[rows], ids, owners).float()

        _, queries, width = self.model.query_tokens.shape
        return self._paired(features, pairs, states, (queries, width))

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

    @single_threaded
    @torch.inference_mode()
    def _read(self, texts: Sequence[str], run: Callable[[Tensor], Tensor]) -> list[Tensor]:
        """Run texts [N, T] of equal length together; results in the order of ``texts``."""
        found: dict[int, Tensor] = {}
        for members, ids in self._equal(texts):
            found.update(zip(members, run(ids), strict=True))
        return [found[number] for number in range(len(texts))]

    @single_threaded
    @torch.inference_mode()
    def _paired(
        self,
        features: ImageFeatures,
        pairs: Sequence[Pair],
        run: Callable[[Tensor, Tensor, Tensor], Tensor],
        shape: tuple[int, ...],
    ) -> Tensor:
        """Run pairs of equally long texts together: [U] rows of their images, each once, [M, T]
        ids, and the images' places among the rows [M], at a time."""
        device = features.image_embeds.device
        result = torch.zeros((len(pairs), *shape), device=device)
        for members, ids in self._equal([pair.text for pair in pairs]):
            images = [pairs[number].image for number in members]
            places = {image: place for place, image in enumerate(dict.fromkeys(images))}
            rows = torch.tensor(list(places), device=device)
            owners = torch.tensor([places[image] for image in images], device=device)
            result[members] = run(rows, ids, owners)
        return result

    def _equal(self, texts: Sequence[str]) -> Iterator[tuple[list[int], Tensor]]:
        """Positions and ids [N, T] of texts of one length, a few at a time."""
        ids = [self.codec.encode(text) for text in texts]
        if self._shorten:
            most = self.positions
            ids = [e if len(e) <= most else (*e[: most - 1], *e[-1:]) for e in ids]
        check_length(texts, ids, self.positions)
        for _, members in grouped(map(len, ids), self._together):
            rows = torch.tensor([ids[number] for number in members], device=self.model.device)
            yield members, rows

    @property
    def positions(self) -> int:
        """The most tokens a text may have."""
        return self.model.embeddings.position_embeddings.num_embeddings


def _contrast(images: Tensor, texts: Tensor) -> Tensor:
    """The largest product of a query's vector with the text's: [M, Q, P], [M, P] to [M].

    Multiplied and summed row by row: the bits of a matrix product depend on the other rows.
    """
    return (images * texts[:, None]).sum(dim=-1).amax(dim=1)
