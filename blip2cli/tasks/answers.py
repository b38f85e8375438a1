"""The three ways to an answer: written, chosen by likelihood, or chosen as the text that fits."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from blip2cli.options import DecodeOptions, Norm
from blip2cli.tasks.base import LOGPROB_DECIMALS, logprob
from blip2cli.tasks.choices import probabilities
from blip2cli.tasks.prompting import Wanted
from blip2cli.tasks.writing import write

if TYPE_CHECKING:
    from blip2cli.model.vision.features import ImageFeatures
    from blip2cli.model.wrapper import Blip2

# What cosines of images and texts are divided by before the softmax. Training starts from it and
# learns it (``temp`` in LAVIS's blip2_qformer.py), but the published checkpoints leave the learnt
# value out.
TEMPERATURE = 0.07


@dataclass(frozen=True)
class Answer:
    """An answer as rows have it."""

    text: str
    logprob: float
    flag: str = ""
    probabilities: list[dict[str, object]] | None = None  # of the choices, in their order


def written(
    model: Blip2, features: ImageFeatures, wanted: Sequence[Wanted], decode: DecodeOptions
) -> list[Answer]:
    """Answers in the model's own words."""
    prompts = [one.prompt for one in wanted]
    found = write(model, features, prompts, [one.question for one in wanted], decode)
    return [Answer(said.texts[0].text, logprob(said.texts[0]), said.flag) for said in found]


def chosen(
    model: Blip2, features: ImageFeatures, wanted: Sequence[Wanted], norm: Norm
) -> list[Answer]:
    """The likeliest of each question's choices; ``logprob`` is a token's, as in written texts."""
    prompts, choices = [one.prompt for one in wanted], [one.choices for one in wanted]
    answers = []
    for one, found in zip(wanted, model.score(features, prompts, choices), strict=True):
        scores = [choice.total if norm == "sum" else choice.mean for choice in found]
        answers.append(_best(one.choices, scores, [choice.mean for choice in found]))
    return answers


def fitting(
    model: Blip2, features: ImageFeatures, wanted: Sequence[Wanted], match: bool
) -> list[Answer]:
    """The choice whose text fits the image best, by a retrieval model.

    By contrast: the softmax of the cosines over ``TEMPERATURE``; ``logprob`` is the logarithm of
    the answer's share. With ``match`` by the matching head, which looks at image and text together:
    the softmax of its log-odds, which is the probability of each choice given that one of them,
    and no other, fits; ``logprob`` is the logarithm of the head's own probability for the answer.
    """
    from blip2cli.model.retrieval import Pair

    assert model.retrieval is not None
    pairs = [Pair(one.prompt.image, text) for one in wanted for text in one.texts]
    if match:
        logits = model.retrieval.matching_logits(features, pairs)
        scores = (logits[:, 1] - logits[:, 0]).tolist()
        logprobs = logits.log_softmax(dim=-1)[:, 1].tolist()
    else:
        cosines = model.retrieval.contrastive_scores(features, pairs).tolist()
        scores = [cosine / TEMPERATURE for cosine in cosines]
        logprobs = None
    answers, place = [], 0
    for one in wanted:
        part = slice(place, place + len(one.texts))
        place = part.stop
        answers.append(_best(one.choices, scores[part], logprobs and logprobs[part]))
    return answers


def _best(
    choices: Sequence[str], scores: Sequence[float], logprobs: Sequence[float] | None
) -> Answer:
    """The choice with the highest score, the first of them where several have it."""
    best = max(range(len(choices)), key=scores.__getitem__)
    shares = probabilities(scores)
    reported = math.log(shares[best]) if logprobs is None else logprobs[best]
    return Answer(
        choices[best],
        round(reported, LOGPROB_DECIMALS),
        probabilities=[
            {"choice": choice, "probability": share}
            for choice, share in zip(choices, shares, strict=True)
        ],
    )
