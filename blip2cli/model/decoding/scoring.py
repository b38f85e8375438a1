"""Choice scoring: the log-likelihood of each choice after its prompt.

Every choice is scored by the probability that the model writes exactly it: the product of its
tokens' probabilities and of that of the end after it, under the raw distribution. The end counts
because without it a choice could never lose to one that it begins ("a dog" to "a dog and a cat"),
and because with it the choices exclude one another: the softmax over their scores is the model's
own distribution, given that the answer is one of them. Ranking by the summed log-probability is
what BLIP's authors do with a closed list of answers (``rank_answer`` in LAVIS, arXiv 2201.12086).

As much of a prompt as the family can share is run once for all its choices. Those that are padded
to one length run together: a score does not depend on its neighbours.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from blip2cli.model.decoding.async_copy import AsyncCopy, to_device
from blip2cli.model.decoding.requests import ImagePrompt
from blip2cli.model.decoding.session import DecoderSession
from blip2cli.model.grouping import grouped
from blip2cli.model.layers.streamed import STREAMED_ROWS

# What is held in memory together, at most; STREAMED_ROWS times as much where layers are streamed:
_PROMPTS = 64  # prompts announced together, with their keys and values
_ROWS = 256  # choices that run together, each a row behind its prompt
_TOKENS = 4096  # tokens of those rows, padding and the position in front of each row included
_SCORED = 512  # positions that have logits of the whole vocabulary at one time


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
class ChoicePrompt:
    """A prompt with its choices, as token ids."""

    image: int  # row in the features
    prompt: tuple[int, ...]
    choices: tuple[tuple[int, ...], ...]  # each of at least one token, without an end token

    @property
    def image_prompt(self) -> ImagePrompt:
        """The image with the prompt that its choices follow."""
        return self.image, self.prompt


@torch.inference_mode()
def score_choices(
    session: DecoderSession, prompts: Sequence[ChoicePrompt], end: Sequence[int]
) -> list[list[Likelihood]]:
    """The likelihood of every choice of every prompt, in order.

    ``end`` are the tokens that end a text, any of them; where there is none, none is counted.
    """
    found: dict[tuple[int, int], Likelihood] = {}  # by prompt and number of the choice
    times = STREAMED_ROWS if session.streamed_slots else 1
    for length, members in grouped((len(each.prompt) for each in prompts), times * _PROMPTS):
        session.will_prefill([prompts[number].image_prompt for number in members])
        pairs = [(n, c) for n in members for c in range(len(prompts[n].choices))]
        padded = [session.padded_length(length, len(prompts[n].choices[c])) for n, c in pairs]
        for longest, rows in grouped(padded, lambda longest: times * _rows(longest)):
            chunk = [pairs[row] for row in rows]
            continued = [prompts[n].image_prompt for n, _ in chunk]
            once = {prompt: number for number, prompt in enumerate(dict.fromkeys(continued))}
            which = [once[prompt] for prompt in continued]
            choices = [prompts[n].choices[c] for n, c in chunk]
            logprobs = _logprobs(session, list(once), which, choices, longest, end)
            for pair, values in zip(chunk, logprobs, strict=True):
                found[pair] = Likelihood(sum(values), len(values))
    session.forget_announced()
    return [
        [found[number, choice] for choice in range(len(each.choices))]
        for number, each in enumerate(prompts)
    ]


def _rows(length: int) -> int:
    """How many continuations of a padded length run together."""
    return min(_ROWS, max(1, _TOKENS // (length + 1)))


def _logprobs(
    session: DecoderSession,
    prompts: Sequence[ImagePrompt],
    which: Sequence[int],
    choices: Sequence[tuple[int, ...]],
    longest: int,
    end: Sequence[int],
) -> list[list[float]]:
    """The log-probability of each token of each choice, and of the end after it.

    ``which`` says which of ``prompts`` each choice follows; choices are padded to ``longest``.
    """
    device = session.device
    hidden = session.continuation_states(prompts, which, choices, longest)
    found: dict[int, list[float]] = {}  # by row
    lengths = (len(choice) for choice in choices)
    for length, rows in grouped(lengths, lambda length: max(1, _SCORED // (length + 1))):
        # The state after the last token is needed for the end only.
        logits = session.logits(hidden[to_device(rows, device), : length + 1 if end else length])
        tokens = to_device([choices[row] for row in rows], device)
        distribution = logits.float().log_softmax(dim=-1)
        logprobs = distribution[:, :length].gather(2, tokens[..., None])[..., 0]
        if end:
            ends = distribution[:, -1, to_device(end, device)]
            logprobs = torch.cat((logprobs, ends.logsumexp(dim=-1, keepdim=True)), dim=1)
        found.update(zip(rows, *AsyncCopy(logprobs).values(), strict=True))
    return [found[row] for row in range(len(choices))]
