"""The three ways to an answer: generated, chosen by likelihood, or chosen by image-text score."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from blip2cli.options import AskOptions, DecodeOptions
from blip2cli.tasks.base import LOGPROB_DECIMALS
from blip2cli.tasks.blank_image import blank_logprobs
from blip2cli.tasks.choice_norms import normalized_scores
from blip2cli.tasks.choices import choice_mass, probabilities
from blip2cli.tasks.prompting import PreparedQuestion
from blip2cli.tasks.text_generation import generate_texts

if TYPE_CHECKING:
    from blip2cli.model.vision.features import ImageFeatures
    from blip2cli.model.wrapper import Blip2

# Cosines of images and texts are divided by this before the softmax. Training starts from it and
# learns it (``temp`` in LAVIS's blip2_qformer.py), but the published checkpoints leave the learnt
# value out.
TEMPERATURE = 0.07


@dataclass(frozen=True)
class Answer:
    """An answer as rows hold it."""

    text: str
    logprob: float
    flag: str = ""
    # Of an answer that was chosen:
    probabilities: list[dict[str, object]] | None = None  # of the choices, in their order
    choice_mass: float | None = None  # see ``choices``; None: by a retrieval model
    choice_scores: list[dict[str, object]] | None = None  # what norms are made of, if wanted


def generate_answers(
    model: Blip2,
    features: ImageFeatures,
    questions: Sequence[PreparedQuestion],
    decode: DecodeOptions,
) -> list[Answer]:
    """Answers to open questions, by the language model's decoder."""
    prompts = [question.prompt for question in questions]
    found = generate_texts(model, features, prompts, [each.text for each in questions], decode)
    return [
        Answer(best.text, round(best.logprob, LOGPROB_DECIMALS), flag)
        for best, flag in ((one.texts[0], one.flag) for one in found)
    ]


def score_choices(
    model: Blip2,
    features: ImageFeatures,
    questions: Sequence[PreparedQuestion],
    options: AskOptions,
) -> list[Answer]:
    """The likeliest of each question's choices, by the language model.

    Choices compare by the scores of a norm (see ``choice_norms``); whichever that is, ``logprob``
    is the mean of a token, as in generated texts.
    """
    prompts = [question.prompt for question in questions]
    found = model.score(features, prompts, [question.choices for question in questions])
    blanks: Sequence[Sequence[float] | None] = [None] * len(questions)
    if options.choice_norm == "pmi" or options.choice_scores:
        blanks = blank_logprobs(model, questions)
    answers = []
    for question, likelihoods, blank in zip(questions, found, blanks, strict=True):
        logprobs = [choice.total for choice in likelihoods]
        tokens = [choice.tokens for choice in likelihoods]
        answer = _best(
            question.choices,
            normalized_scores(options.choice_norm or "sum", logprobs, tokens, blank),
            [choice.mean for choice in likelihoods],
            choice_mass(logprobs),
        )
        if options.choice_scores and blank is not None:
            scores = _choice_scores(question.choices, logprobs, tokens, blank)
            answer = replace(answer, choice_scores=scores)
        answers.append(answer)
    return answers


def _choice_scores(
    choices: Sequence[str], logprobs: Sequence[float], tokens: Sequence[int], blank: Sequence[float]
) -> list[dict[str, object]]:
    return [
        {
            "choice": choice,
            "logprob": round(logprob, LOGPROB_DECIMALS),
            "tokens": count,
            "blank_logprob": round(without, LOGPROB_DECIMALS),
        }
        for choice, logprob, count, without in zip(choices, logprobs, tokens, blank, strict=True)
    ]


def match_choices(
    model: Blip2,
    features: ImageFeatures,
    questions: Sequence[PreparedQuestion],
    matching_head: bool,
) -> list[Answer]:
    """The choice whose text fits the image best, by a retrieval model.

    By contrast: the softmax of the cosines over ``TEMPERATURE``; ``logprob`` is the logarithm of
    the answer's share. With ``matching_head``, which attends to image and text together: the
    softmax of its log-odds, which is the probability of each choice given that exactly one of them
    fits; ``logprob`` is the logarithm of the head's own probability for the answer.
    """
    from blip2cli.model.retrieval import Pair

    assert model.retrieval is not None
    pairs = [Pair(one.prompt.image, text) for one in questions for text in one.choice_texts]
    if matching_head:
        logits = model.retrieval.matching_logits(features, pairs)
        scores = (logits[:, 1] - logits[:, 0]).tolist()
        logprobs = logits.log_softmax(dim=-1)[:, 1].tolist()
    else:
        cosines = model.retrieval.contrastive_scores(features, pairs).tolist()
        scores = [cosine / TEMPERATURE for cosine in cosines]
        logprobs = None
    answers, start = [], 0
    for one in questions:
        span = slice(start, start + len(one.choices))
        start = span.stop
        answers.append(_best(one.choices, scores[span], logprobs and logprobs[span]))
    return answers


def _best(
    choices: Sequence[str],
    scores: Sequence[float],
    logprobs: Sequence[float] | None,
    mass: float | None = None,
) -> Answer:
    """The choice with the highest score, the first of several equal ones."""
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
        choice_mass=mass,
    )
