"""Image-text contrast and matching, exactly as ``Blip2ForImageTextRetrieval`` computes them.

Both scores are computed from image embeddings; and their accuracy is measured.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize
from transformers import Blip2ForImageTextRetrieval, PreTrainedTokenizerFast

from blip2cli.tiny.scenes import Scene
from training.build import QUERIES
from training.claims import CHANGES, Claim
from training.evaluate import HELD_OUT_SEED
from training.labels import UNKNOWN
from training.padding import padded, padding_mask


@dataclass(frozen=True)
class Captions:
    """R captions: ``ids`` and ``mask`` int64 [R, T], padded on the right.

    ``wrong`` int64 [R, T]: 1 where a token's claim is false, 0 where it is true,
    UNKNOWN where it claims nothing (or there is no picture to compare with).
    """

    ids: Tensor
    mask: Tensor
    wrong: Tensor


class CaptionMaker:
    """Turns claims into ``Captions``."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self.start, self.end = tokenizer.cls_token_id, tokenizer.sep_token_id
        self.pad = tokenizer.pad_token_id
        encode = tokenizer.backend_tokenizer.encode
        self.encode = lru_cache(100_000)(
            lambda text: tuple(encode(text, add_special_tokens=False).ids)
        )

    def captions(self, claims: Sequence[Claim], seen: Sequence[Claim] | None = None) -> Captions:
        """The captions of ``claims`` beside pictures of which ``seen`` is true."""
        rows, marks = [], []
        for number, claim in enumerate(claims):
            ids, wrong = [self.start], [UNKNOWN]
            for piece, group in claim.pieces:
                tokens = self.encode(piece)
                mark = UNKNOWN
                if seen is not None and group is not None:
                    mark = int(not claim.holds(seen[number], group))
                ids += tokens
                wrong += [mark] * len(tokens)
            rows.append([*ids, self.end])
            marks.append([*wrong, UNKNOWN])
        return Captions(padded(rows, self.pad), padding_mask(rows), padded(marks, UNKNOWN))


def embed_images(model: Blip2ForImageTextRetrieval, image_embeds: Tensor) -> Tensor:
    """The contrast's unit vectors [B, Q, D] of image embeddings [B, P+1, W]."""
    output = model.qformer(
        query_embeds=model.query_tokens.expand(len(image_embeds), -1, -1),
        encoder_hidden_states=image_embeds,
    ).last_hidden_state
    return normalize(model.vision_projection(output), dim=-1)


def embed_texts(model: Blip2ForImageTextRetrieval, captions: Captions) -> Tensor:
    """The contrast's unit vectors [R, D] of captions: what their first token has become."""
    output = model.qformer(
        query_embeds=model.embeddings(input_ids=captions.ids),
        query_length=0,
        attention_mask=captions.mask,
    ).last_hidden_state
    return normalize(model.text_projection(output[:, 0]), dim=-1)


def similarities(images: Tensor, texts: Tensor) -> Tensor:
    """[B, R]: of every image's best query with every text."""
    return torch.einsum("bqd,rd->bqr", images, texts).amax(1)


def read_together(
    model: Blip2ForImageTextRetrieval, image_embeds: Tensor, captions: Captions, **options: bool
) -> Any:
    """The Q-Former's output on R pictures, Q queries each, beside their captions."""
    queries = model.query_tokens.expand(len(image_embeds), -1, -1)
    seen = captions.mask.new_ones(queries.shape[:2])
    return model.qformer(
        query_embeds=model.embeddings(input_ids=captions.ids, query_embeds=queries),
        query_length=QUERIES,
        attention_mask=torch.cat([seen, captions.mask], dim=1),
        encoder_hidden_states=image_embeds,
        **options,
    )


def match(model: Blip2ForImageTextRetrieval, together: Tensor) -> Tensor:
    """The matching head's scores [R, 2] (does not fit, fits) of outputs [R, Q+T, W]."""
    scores: Tensor = model.itm_head(together[:, :QUERIES]).mean(1)
    return scores


def fits(model: Blip2ForImageTextRetrieval, image_embeds: Tensor, captions: Captions) -> Tensor:
    """Whether each of R captions fits its picture, as the matching head sees it: bool [R]."""
    output = read_together(model, image_embeds, captions).last_hidden_state
    return torch.eq(match(model, output).argmax(1), 1)


@dataclass(frozen=True)
class MatchScores:
    """Shares, 0 to 1, and what they were measured on."""

    texts: float  # recall@1: the right caption among a hundred
    images: float  # recall@1: the right picture among a hundred
    matching: float  # of right captions and nearly right ones, as many of either
    by_change: dict[str, float]  # of nearly right ones, for each of CHANGES
    draws: int  # of a hundred
    pairs: int

    def __str__(self) -> str:
        changes = ", ".join(f"{name} {share:.2%}" for name, share in self.by_change.items())
        return (
            f"recall@1 image to text {self.texts:.2%}, text to image {self.images:.2%} (mean of "
            f"{self.draws} draws of 100), matching {self.matching:.2%} of {self.pairs:,} "
            f"({changes})"
        )


@torch.inference_mode()
def evaluate(
    model: Blip2ForImageTextRetrieval,
    maker: CaptionMaker,
    image_embeds: Tensor,
    scenes: Sequence[Scene],
    draws: int = 20,
) -> MatchScores:
    """Measure on scenes whose image embeddings [N, P+1, W] are given."""
    model.eval()
    rng = random.Random(HELD_OUT_SEED)
    claims = [Claim.of(scene) for scene in scenes]
    distinct = list({claim: i for i, claim in enumerate(claims)}.values())
    chunks = [slice(i, i + 100) for i in range(0, len(claims), 100)]
    embeds = [image_embeds[chunk].to(model.dtype) for chunk in chunks]
    images = torch.cat([embed_images(model, each) for each in embeds])
    texts = torch.cat([embed_texts(model, maker.captions(claims[chunk])) for chunk in chunks])
    found = similarities(images, texts)
    both = []
    for _ in range(draws):
        drawn = torch.tensor(rng.sample(distinct, 100))
        among = found[drawn][:, drawn]
        own = torch.arange(100)
        both.append([(among.argmax(way) == own).float().mean().item() for way in (1, 0)])
    changed = {name: [change(rng, claim) for claim in claims] for name, change in CHANGES.items()}
    fitting = {
        name: torch.cat(
            [
                fits(model, each, maker.captions(claimed[chunk]))
                for chunk, each in zip(chunks, embeds, strict=True)
            ]
        )
        for name, claimed in {"": claims, **changed}.items()
    }
    by_change = {name: 1 - fitting[name].float().mean().item() for name in CHANGES}
    positive = fitting[""].float().mean().item()
    texts_share, images_share = np.mean(both, axis=0)
    return MatchScores(
        texts=float(texts_share),
        images=float(images_share),
        matching=(positive + float(np.mean(list(by_change.values())))) / 2,
        by_change=by_change,
        draws=draws,
        pairs=2 * len(claims),
    )
