"""How likely given texts are as answers: the likelihood of each choice after its prompt.

Every choice is scored by the probability that the model writes exactly it: the product of its
tokens' probabilities and of that of the end after it, under the raw distribution. The end counts
because without it a choice could never lose to one that it begins ("a dog" to "a dog and a cat"),
and because with it the choices exclude one another: the softmax over their scores is the model's
own distribution, given that the answer is one of them. Ranking by the summed log-probability is
what BLIP's authors do with a closed list of answers (``rank_answer`` in LAVIS, arXiv 2201.12086).

A prompt is read once, and its keys and values are shared by its choices. Those that the reader
fills up to one length run together: a score does not depend on its neighbours.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blip2cli.model.decoding.scheduler import Pair, Reader

# What is held at once: prompts that were read, rows and tokens that follow them, and tokens with
# scores of the whole vocabulary.
_PROMPTS = 64
_ROWS = 256
_TOKENS = 4096
_SCORED = 512


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
    for prompts in _alike(asked):
        reader.expect([(asked[prompt].image, asked[prompt].prompt) for prompt in prompts])
        for longest, some in _together(reader, asked, prompts):
            pairs = [(asked[prompt].image, asked[prompt].prompt) for prompt, _ in some]
            once = {pair: number for number, pair in enumerate(dict.fromkeys(pairs))}
            which = torch.tensor([once[pair] for pair in pairs])
            choices = [asked[prompt].choices[number] for prompt, number in some]
            said = _said(reader, list(once), which, choices, longest, end)
            for pair, values in zip(some, said, strict=True):
                found[pair] = Likelihood(sum(values), len(values))
    reader.expect(())  # lets go of what was read ahead
    return [
        [found[number, choice] for choice in range(len(one.choices))]
        for number, one in enumerate(asked)
    ]


def _alike(asked: Sequence[Asked]) -> Iterator[list[int]]:
    """Prompts of one length, so many at a time as are kept."""
    lengths: dict[int, list[int]] = defaultdict(list)
    for number, one in enumerate(asked):
        lengths[len(one.prompt)].append(number)
    for members in lengths.values():
        for start in range(0, len(members), _PROMPTS):
            yield members[start : start + _PROMPTS]


def _together(
    reader: Reader, asked: Sequence[Asked], prompts: Sequence[int]
) -> Iterator[tuple[int, list[tuple[int, int]]]]:
    """What choices are filled up to, and prompts with choices of such a length, so many at a time
    as are run together."""
    groups: dict[int, list[tuple[int, int]]] = defaultdict(list)
    for prompt in prompts:
        for number, choice in enumerate(asked[prompt].choices):
            longest = reader.padded(len(asked[prompt].prompt), len(choice))
            groups[longest].append((prompt, number))
    for longest, members in groups.items():
        size = min(_ROWS, max(1, _TOKENS // (longest + 1)))
        for start in range(0, len(members), size):
            yield longest, members[start : start + size]


def _of_one_length(choices: Sequence[tuple[int, ...]]) -> Iterator[list[int]]:
    """Which choices have equally many tokens, so many at a time as are scored together."""
    lengths: dict[int, list[int]] = defaultdict(list)
    for row, choice in enumerate(choices):
        lengths[len(choice)].append(row)
    for length, rows in lengths.items():
        size = max(1, _SCORED // (length + 1))
        for start in range(0, len(rows), size):
            yield rows[start : start + size]


def _said(
    reader: Reader,
    pairs: Sequence[Pair],
    which: Tensor,
    choices: Sequence[tuple[int, ...]],
    longest: int,
    end: Sequence[int],
) -> list[list[float]]:
    """The log-probability of each token of each choice, and of the end after it."""
    filled = [(*choice, *(0,) * (longest - len(choice))) for choice in choices]
    device = reader.device
    hidden = reader.follow(pairs, which.to(device), torch.tensor(filled, device=device))
    values: dict[int, list[float]] = {}  # by row
    for rows in _of_one_length(choices):
        length = len(choices[rows[0]])
        # The last token's own state is wanted for the end alone.
        raw = reader.scores(hidden[rows, : length + 1 if end else length])
        tokens = torch.tensor([choices[row] for row in rows], device=device)
        logprobs = raw.float().log_softmax(dim=-1)
        said = logprobs[:, :length].gather(2, tokens[..., None])[..., 0]
        if end:
            ends = logprobs[:, -1, torch.tensor(list(end), device=device)]
            said = torch.cat((said, ends.logsumexp(dim=-1, keepdim=True)), dim=1)
        values.update(zip(rows, said.tolist(), strict=True))
    return [values[row] for row in range(len(choices))]
