"""The decode loop: greedy and sampled text, one row a text, finished rows leave.

A row's bits never depend on its neighbours: prompts of unequal length are run apart instead of
padded, linear layers are row-stable (see ``rows``), attention is plain matrix products, and
each sampled row draws from a generator of its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from blip2cli.model.checkpoint import Family
from blip2cli.model.language import Prefix, prefill
from blip2cli.options import DecodeOptions

if TYPE_CHECKING:
    from transformers.generation.logits_process import LogitsProcessorList
    from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration


@dataclass
class Written:
    """One row's text so far."""

    tokens: list[int] = field(default_factory=list)
    logprobs: list[float] = field(default_factory=list)

    @property
    def logprob(self) -> float:
        """Mean log-probability of the tokens under the model's raw distribution."""
        return sum(self.logprobs) / len(self.logprobs)


def score_rules(
    options: DecodeOptions, end: Sequence[int], prompt_length: int, device: torch.device
) -> LogitsProcessorList:
    """transformers' own rules on the next token's scores, in transformers' order.

    ``prompt_length`` is the length of the history before the first new token.
    """
    from transformers.generation import logits_process as rules

    chosen = rules.LogitsProcessorList()
    if options.repetition_penalty != 1.0:
        chosen.append(rules.RepetitionPenaltyLogitsProcessor(float(options.repetition_penalty)))
    if options.no_repeat_ngram_size > 0:
        chosen.append(rules.NoRepeatNGramLogitsProcessor(options.no_repeat_ngram_size))
    if options.min_new_tokens > 0 and end:
        chosen.append(
            rules.MinNewTokensLengthLogitsProcessor(
                prompt_length,
                options.min_new_tokens,
                torch.tensor(list(end), device=device),
            )
        )
    if options.temperature is not None and options.temperature != 1.0:
        chosen.append(rules.TemperatureLogitsWarper(float(options.temperature)))
    if options.top_k is not None:
        chosen.append(rules.TopKLogitsWarper(options.top_k))
    if options.top_p is not None and options.top_p < 1.0:
        chosen.append(rules.TopPLogitsWarper(options.top_p))
    return chosen


def decode(
    model: Blip2ForConditionalGeneration,
    family: Family,
    prefix: Prefix,
    names: Sequence[str],
    options: DecodeOptions,
    end: Sequence[int],
) -> list[list[Written]]:
    """Write ``options.num_return`` texts for each of the prefix's R rows.

    ``names`` seed the draws, one a row. Draws come back in the order of their seeds.
    """
    raw, state = prefill(model, family, prefix)
    history = prefix.history
    draws = options.num_return
    texts = [Written() for _ in range(len(names) * draws)]
    pickers = None
    if options.sampling:
        pickers = [_generator(options.seed, name, n) for name in names for n in range(draws)]
    if draws > 1:
        rows = torch.arange(len(names), device=raw.device).repeat_interleave(draws)
        raw, history = raw[rows], history[rows]
        state.select(rows)
    rules = score_rules(options, end, history.shape[1], raw.device)
    running = list(range(len(texts)))  # which text each row of the state is writing
    for step in range(1, options.max_new_tokens + 1):
        raw = raw.float()
        scores = rules(history, raw)  # type: ignore[arg-type]
        if pickers is None:
            chosen = scores.argmax(dim=-1)
        else:
            chosen = draw(scores, [pickers[text] for text in running])
        said = raw.log_softmax(dim=-1).gather(1, chosen[:, None])[:, 0]
        stay = []
        for row, (token, logprob) in enumerate(zip(chosen.tolist(), said.tolist(), strict=True)):
            text = texts[running[row]]
            text.tokens.append(token)
            text.logprobs.append(logprob)
            if token not in end:
                stay.append(row)
        if not stay or step == options.max_new_tokens:
            break
        history = torch.cat((history, chosen[:, None]), dim=1)
        if len(stay) < len(running):
            rows = torch.tensor(stay, device=raw.device)
            state.select(rows)
            history, chosen = history[rows], chosen[rows]
            running = [running[row] for row in stay]
        raw = state.step(chosen)
    return [texts[i : i + draws] for i in range(0, len(texts), draws)]


def draw(scores: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Draw one token a row from scores [R, V], row i with generator i; returns [R].

    By inverting the distribution function in float64: one uniform number decides, so the
    draw is the same on every device that gives the same scores.
    """
    total = scores.double().softmax(dim=-1).cumsum(dim=-1)
    uniform = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
    # Scaled by the last sum, which rounding leaves just off 1: the point is always below it.
    point = uniform.to(total.device) * total[:, -1:]
    return torch.searchsorted(total, point, right=True)[:, 0].clamp(max=scores.shape[-1] - 1)


def _generator(seed: int, name: str, number: int) -> torch.Generator:
    """The generator of one draw, from the run's seed and the row's name alone."""
    # surrogateescape names (paths that are not UTF-8) have bytes of their own.
    key = f"{seed}\0{number}\0{name}".encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(key, digest_size=8).digest()
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(digest, "little") >> 1)
    return generator
