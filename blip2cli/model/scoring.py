"""How likely given texts are as answers: the likelihood of each choice after its prompt.

Every choice is scored by the probability that the model writes exactly it: the product of its
tokens' probabilities and of that of the end after it, under the raw distribution. The end counts
because without it a choice could never lose to one that it begins ("a dog" to "a dog and a cat"),
and because with it the choices exclude one another: the softmax over their scores is the model's
own distribution, given that the answer is one of them. Ranking by the summed log-probability is
what BLIP's authors do with a closed list of answers (``rank_answer`` in LAVIS, arXiv 2201.12086).

A prompt is read once for its choices of one length, and its keys and values are shared by them;
prompts and choices of equal length run together, so nothing is padded and a score does not depend
on its neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blip2cli.model.slots import Reader

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


@torch.inference_mode()
def score(reader: Reader, asked: Sequence[Asked], end: Sequence[int]) -> list[list[Likelihood]]:
    """The likelihood of every choice of every prompt, in order.

    ``end`` are the tokens that end a text, any of them; where there is none, none is counted.
    """
    found: dict[tuple[int, int], Likelihood] = {}  # by prompt and number of the choice
    for some in _alike(asked):
        pairs = [(asked[prompt].image, asked[prompt].prompt) for prompt, _ in some]
        once = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
        which = torch.tensor([once[pair] for pair in pairs])
        tokens = torch.tensor([asked[prompt].choices[number] for prompt, number in some])
        for pair, values in zip(some, _said(reader, list(once), which, tokens, end), strict=True):
            found[pair] = Likelihood(sum(values), len(values))
    return [
        [found[number, choice] for choice in range(len(one.choices))]
        for number, one in enumerate(asked)
    ]


def _alike(asked: Sequence[Asked]) -> Iterator[list[tuple[int, int]]]:
    """Prompts with choices, all of one length each, so many at a time as are run together.

    The choices of a prompt stay together, so that it is read once for those of one length.
    """
    groups: dict[tuple[int, int], list[tuple[int, int]]] = defaultdict(list)
    for prompt, one in enumerate(asked):
        for number, choice in enumerate(one.choices):
            groups[len(one.prompt), len(choice)].append((prompt, number))
    for (_, length), members in groups.items():
        size = min(_ROWS, max(1, _TOKENS // (length + 1)))
        for start in range(0, len(members), size):
            yield members[start : start + size]


def _said(
    reader: Reader,
    pairs: Sequence[tuple[int, tuple[int, ...]]],
    which: Tensor,
    tokens: Tensor,
    end: Sequence[int],
) -> list[list[float]]:
    """The log-probability of each of tokens [N, T], and of the end after them."""
    # The last token's own scores are wanted for the end alone.
    raw = reader.follow(pairs, which, tokens if end else tokens[:, :-1])
    logprobs = raw.float().log_softmax(dim=-1)
    tokens = tokens.to(raw.device)
    said = logprobs[:, : tokens.shape[1]].gather(2, tokens[..., None])[..., 0]
    if end:
        ends = logprobs[:, -1, torch.tensor(list(end), device=raw.device)]
        said = torch.cat((said, ends.logsumexp(dim=-1, keepdim=True)), dim=1)
    values: list[list[float]] = said.tolist()
    return values
