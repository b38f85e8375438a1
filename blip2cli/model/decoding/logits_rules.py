"""Rules that change the scores of the next token: transformers' logits processors and warpers
(``logits_process.py``), with the same results.

Rows may be of unequal lengths, and no number is looked at on the host, so a GPU is never waited
for.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from blip2cli.model.decoding.async_copy import to_device
from blip2cli.options import DecodeOptions


@dataclass(frozen=True)
class History:
    """The ids of R sequences so far, with those before the first new token."""

    ids: Tensor  # [R, L]; what lies behind the last id of a row is never looked at
    lengths: Tensor  # [R], the number of ids
    new: Tensor  # [R], how many of them are new tokens

    @classmethod
    def of(
        cls,
        before: Sequence[tuple[int, ...]],
        tokens: Sequence[Sequence[int]],
        device: torch.device,
    ) -> History:
        """Of the ids before the first new token, and the new tokens, of each row."""
        longest = max(len(ids) + len(new) for ids, new in zip(before, tokens, strict=True))
        rows = [
            (*ids, *new, *(0,) * (longest - len(ids) - len(new)), len(ids) + len(new), len(new))
            for ids, new in zip(before, tokens, strict=True)
        ]
        return cls.packed(to_device(rows, device))

    @classmethod
    def packed(cls, rows: Tensor) -> History:
        """Of rows [R, L + 2]: ids, their number, and that of new tokens."""
        return cls(rows[:, :-2], rows[:, -2], rows[:, -1])

    def known(self, vocabulary: int) -> Tensor:
        """The ids, and ``vocabulary`` where there is none, or one that is no token: [R, L]."""
        places = torch.arange(self.ids.shape[1], device=self.ids.device)
        known = self.ids.masked_fill(places >= self.lengths[:, None], vocabulary)
        return known.clamp_(max=vocabulary)


# From raw scores [R, V] of the next tokens to processed ones: logits, of beams log-probabilities.
Rule = Callable[[History, Tensor], Tensor]


def logits_rules(options: DecodeOptions, end: Sequence[int]) -> Rule | None:
    """The rules that ``options`` ask for, in the order of transformers' ``generate``; None where
    the raw scores decide. ``end`` are the tokens that end a text."""
    rules: list[Rule] = []
    if options.repetition_penalty != 1.0:
        rules.append(functools.partial(_penalize_repetition, float(options.repetition_penalty)))
    if options.no_repeat_ngram_size > 0:
        rules.append(functools.partial(_forbid_ngrams, options.no_repeat_ngram_size))
    if options.min_new_tokens > 0 and end:
        rules.append(functools.partial(_forbid_end, options.min_new_tokens, list(end)))
    if options.temperature is not None and options.temperature != 1.0:
        rules.append(functools.partial(_scale, float(options.temperature)))
    if options.top_k is not None:
        rules.append(functools.partial(_keep_best, options.top_k))
    if options.top_p is not None and options.top_p < 1.0:
        rules.append(functools.partial(_keep_probable, float(options.top_p)))
    return functools.partial(_apply, rules) if rules else None


def _apply(rules: Sequence[Rule], history: History, scores: Tensor) -> Tensor:
    for rule in rules:
        scores = rule(history, scores)
    return scores


def _penalize_repetition(penalty: float, history: History, scores: Tensor) -> Tensor:
    known = history.known(scores.shape[1])
    padded = pad(scores, (0, 1))
    found = padded.gather(1, known)
    found = torch.where(found < 0, found * penalty, found / penalty)
    return padded.scatter(1, known, found)[:, :-1]


def _forbid_ngrams(size: int, history: History, scores: Tensor) -> Tensor:
    vocabulary = scores.shape[1]
    known = history.known(vocabulary)
    longest = known.shape[1]
    if longest < size:
        return scores
    places = torch.arange(longest, device=known.device)
    lengths = history.lengths[:, None]
    # The last ids of each row, which a token would make an n-gram of.
    last = known.gather(1, (lengths - (size - 1) + places[: size - 1]).clamp_(0, longest - 1))
    ngrams = known.unfold(1, size, 1)  # [R, L - size + 1, size]
    repeats = (ngrams[..., :-1] == last[:, None]).all(dim=-1) & (places[size - 1 :] < lengths)
    forbidden = torch.where(repeats, ngrams[..., -1], vocabulary)
    return pad(scores, (0, 1)).scatter_(1, forbidden, -torch.inf)[:, :-1]


def _forbid_end(least: int, end: Sequence[int], history: History, scores: Tensor) -> Tensor:
    ends = to_device(end, scores.device)
    early = history.new[:, None] < least
    return scores.index_copy(1, ends, scores[:, ends].masked_fill(early, -torch.inf))


def _scale(temperature: float, history: History, scores: Tensor) -> Tensor:
    return scores / temperature


def _keep_best(count: int, history: History, scores: Tensor) -> Tensor:
    best = torch.topk(scores, min(count, scores.shape[1]))[0]
    return scores.masked_fill(scores < best[:, -1:], -torch.inf)


def _keep_probable(share: float, history: History, scores: Tensor) -> Tensor:
    ascending, order = torch.sort(scores, descending=False)
    removed = ascending.softmax(dim=-1).cumsum(dim=-1) <= (1 - share)
    removed[:, -1:] = False
    return scores.masked_fill(removed.scatter(1, order, removed), -torch.inf)
