"""How likely given texts are as answers: the likelihood of each choice after its prompt.

Every choice is scored by the probability that the model writes exactly it: the product of its
tokens' probabilities and of that of the end after it, under the raw distribution. The end counts
because without it a choice could never lose to one that it begins ("a dog" to "a dog and a cat"),
and because with it the choices exclude one another: the softmax over their scores is the model's
own distribution, given that the answer is one of them. Ranking by the summed log-probability is
what BLIP's authors do with a closed list of answers (``rank_answer`` in LAVIS, arXiv 2201.12086).

A prompt is read once, and its keys and values are shared by all its choices; those of equal
length are read together, so nothing is padded and a score does not depend on its neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2cli.model.checkpoint import Family
from blip2cli.model.language import LanguageState, read_images
from blip2cli.model.text import equally_long

if TYPE_CHECKING:
    from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration

# What is held at once: rows with keys and values, and tokens with scores of the whole vocabulary.
_ROWS = 128
_TOKENS = 512


@dataclass(frozen=True)
class Likelihood:
    """How likely one choice is as the answer."""

    total: float  # log-probability of the tokens and of the end after them
    tokens: int  # how many log-probabilities that sums

    @property
    def mean(self) -> float:
        """Log-probability a token, as generated texts report it."""
        return self.total / self.tokens


@dataclass(frozen=True)
class Asked:
    """One prompt with its choices, as token ids."""

    image: int  # row in the features
    prompt: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]  # each of at least one token, without an end token


def score(
    model: Blip2ForConditionalGeneration,
    family: Family,
    images: Tensor,
    asked: Sequence[Asked],
    end: Sequence[int],
) -> list[list[Likelihood]]:
    """The likelihood of every choice of every prompt; ``images`` are features [B, Q, D].

    ``end`` are the tokens that end a text, any of them; where there is none, none is counted.
    """
    used = sorted({one.image for one in asked})
    place = {image: row for row, image in enumerate(used)}
    pictures = read_images(model, family, images[torch.tensor(used, device=images.device)])
    results: list[list[Likelihood]] = [[] for _ in asked]
    for members in equally_long([one.prompt for one in asked], _ROWS):
        rows = torch.tensor([place[asked[n].image] for n in members], device=images.device)
        prompts = torch.tensor([asked[n].prompt for n in members], device=images.device)
        raw, state = pictures.read(rows, prompts)
        choices = [asked[n].choices for n in members]
        for number, found in zip(members, _score_rows(raw, state, choices, end), strict=True):
            results[number] = found
    return results


def _score_rows(
    raw: Tensor,
    state: LanguageState,
    choices: Sequence[Sequence[tuple[int, ...]]],
    end: Sequence[int],
) -> list[list[Likelihood]]:
    """Likelihoods of each row's choices, after prompts that gave ``raw`` [R, V] and ``state``."""
    first = raw.float().log_softmax(dim=-1)
    lengths: dict[int, list[tuple[int, int]]] = defaultdict(list)  # (row, its choice)
    for row, listed in enumerate(choices):
        for number, choice in enumerate(listed):
            lengths[len(choice)].append((row, number))
    found: dict[tuple[int, int], Likelihood] = {}
    for length, pairs in lengths.items():
        for some in _portions(pairs, min(_ROWS, max(1, _TOKENS // length))):
            tokens = torch.tensor([choices[r][n] for r, n in some], device=raw.device)
            rows = torch.tensor([r for r, _ in some], device=raw.device)
            logprobs = [first[rows, tokens[:, 0]][:, None]]
            if length > 1 or end:
                after = state.fork(rows).extend(tokens if end else tokens[:, :-1])
                said = after.float().log_softmax(dim=-1)  # [N, T, V]
                logprobs.append(said[:, : length - 1].gather(2, tokens[:, 1:, None])[..., 0])
                if end:
                    ends = said[:, -1, torch.tensor(list(end), device=raw.device)]
                    logprobs.append(ends.logsumexp(dim=-1, keepdim=True))
            for pair, values in zip(some, torch.cat(logprobs, dim=1).tolist(), strict=True):
                found[pair] = Likelihood(sum(values), len(values))
    return [
        [found[row, number] for number in range(len(listed))] for row, listed in enumerate(choices)
    ]


def _portions(pairs: Sequence[tuple[int, int]], size: int) -> Iterator[Sequence[tuple[int, int]]]:
    edges = [*range(0, len(pairs), size), len(pairs)]
    return (pairs[start:stop] for start, stop in pairwise(edges))
