"""Texts that the Q-Former reads, by themselves or each beside an image.

No text is ever padded: texts of equal length run together, so that a result depends on neither the
other texts nor the other images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blip2cli.model.grouping import grouped
from blip2cli.model.layers.streamed import STREAMED_ROWS
from blip2cli.model.limits import check_length
from blip2cli.model.nets.blip2 import Blip2Net
from blip2cli.model.placement.single_thread import needs_single_thread, single_threaded
from blip2cli.model.tokenizer.text import TextCodec
from blip2cli.model.vision.features import ImageFeatures

# Pairs that go through the Q-Former together: each holds keys and values of its image once more.
_BATCH = 32


@dataclass(frozen=True)
class Pair:
    """An image and a text beside it."""

    image: int  # row in the features
    text: str


class TextReader:
    """The half of a model that reads texts in the Q-Former. B images have Q query outputs of width
    Dq each; all results are on the model's device."""

    model: Blip2Net

    def __init__(self, model: Blip2Net, codec: TextCodec, shorten: bool = False) -> None:
        self.model = model
        self.codec = codec
        self._shorten = shorten  # texts that are too long, to their first tokens and the last
        self.runs_single_threaded = needs_single_thread(model)
        self._together = _BATCH * (STREAMED_ROWS if model.stream else 1)

    @property
    def positions(self) -> int:
        """The most tokens a text may have."""
        return self.model.text_embeddings().position_embeddings.num_embeddings

    def multimodal(self, features: ImageFeatures, pairs: Sequence[Pair]) -> Tensor:
        """The query outputs for an image with a text beside it: float32 [M, Q, Dq].

        What LAVIS's feature extractor calls multimodal: the first Q positions of the Q-Former's
        last hidden state, given query tokens and text together.
        """

        def states(rows: Tensor, ids: Tensor, owners: Tensor) -> Tensor:
            return self.model.encode_pairs(features.image_embeds[rows], ids, owners).float()

        _, queries, width = self.model.query_tokens.shape
        return self._paired(features, pairs, states, (queries, width))

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
