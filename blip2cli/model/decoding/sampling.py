"""Choosing the next token from its logits: logits processors and sampling."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blip2cli.model.grouping import grouped
from blip2cli.options import DecodeOptions
from blip2cli.system.library_logging import silence_libraries

if TYPE_CHECKING:
    from transformers.generation.logits_process import LogitsProcessorList


NO_FLOAT64 = frozenset({"mps"})  # devices, by their types; the host draws for them

# From the number of ids before the first new token to processors that make scores [R, V] of ids
# [R, L] and raw scores [R, V].
ProcessorFactory = Callable[[int], Callable[[Tensor, Tensor], Tensor]]


def logits_processors(
    options: DecodeOptions, end: Sequence[int], input_length: int, device: torch.device
) -> LogitsProcessorList | None:
    """transformers' own logits processors, in the order of its ``generate``.

    ``input_length`` is the number of ids before the first new token. None where the raw logits
    decide: importing transformers takes longer than a small job.
    """
    if not _needs_processors(options, end):
        return None
    library = _transformers_processors()

    chosen: LogitsProcessorList = library.LogitsProcessorList()
    if options.repetition_penalty != 1.0:
        chosen.append(library.RepetitionPenaltyLogitsProcessor(float(options.repetition_penalty)))
    if options.no_repeat_ngram_size > 0:
        chosen.append(library.NoRepeatNGramLogitsProcessor(options.no_repeat_ngram_size))
    if options.min_new_tokens > 0 and end:
        chosen.append(
            library.MinNewTokensLengthLogitsProcessor(
                input_length,
                options.min_new_tokens,
                torch.tensor(list(end), device=device),
            )
        )
    if options.temperature is not None and options.temperature != 1.0:
        chosen.append(library.TemperatureLogitsWarper(float(options.temperature)))
    if options.top_k is not None:
        chosen.append(library.TopKLogitsWarper(options.top_k))
    if options.top_p is not None and options.top_p < 1.0:
        chosen.append(library.TopPLogitsWarper(options.top_p))
    return chosen


@lru_cache(maxsize=1)
def _transformers_processors() -> Any:
    with silence_libraries():
        from transformers.generation import logits_process
    return logits_process


def _needs_processors(options: DecodeOptions, end: Sequence[int]) -> bool:
    return (
        options.repetition_penalty != 1.0
        or options.no_repeat_ngram_size > 0
        or (options.min_new_tokens > 0 and bool(end))
        or options.temperature not in (None, 1.0)
        or options.top_k is not None
        or (options.top_p is not None and options.top_p < 1.0)
    )


def process_scores(
    processors: ProcessorFactory,
    input_ids: Sequence[tuple[int, ...]],
    tokens: Sequence[Sequence[int]],
    scores: Tensor,
) -> Tensor:
    """Processed scores [R, V] of the next tokens, from each row's ids before the first new token,
    its generated tokens and raw scores [R, V]: logits, of beams log-probabilities.

    Processors take rows of one length, so those of equal lengths go through them together.
    """
    lengths = [(len(ids), len(new)) for ids, new in zip(input_ids, tokens, strict=True)]
    processed = torch.empty_like(scores)
    for (length, _), rows in grouped(lengths):
        ids = torch.tensor([(*input_ids[row], *tokens[row]) for row in rows], device=scores.device)
        processed[rows] = processors(length)(ids, scores[rows])
    return processed


def draw(logits: Tensor, generators: Sequence[torch.Generator]) -> Tensor:
    """Sample one token a row from logits [R, V], row i with generator i; returns [R].

    By inverting the distribution function in float64: one uniform number decides, so the
    draw is the same on every device that gives the same logits.
    """
    if logits.device.type in NO_FLOAT64:
        return draw(logits.cpu(), generators).to(logits.device)
    total = logits.double().softmax(dim=-1).cumsum(dim=-1)
    uniform = torch.stack([torch.rand(1, generator=g, dtype=torch.float64) for g in generators])
    # Scaled by the last sum, which rounding leaves just off 1: the point is always below it.
    point = uniform.to(total.device) * total[:, -1:]
    return torch.searchsorted(total, point, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def generator_of(seed: int, name: str, number: int) -> torch.Generator:
    """The generator of one draw, from the run's seed and the row's name."""
    # surrogateescape names (paths that are not UTF-8) have bytes of their own.
    key = f"{seed}\0{number}\0{name}".encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(key, digest_size=8).digest()
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(digest, "little") >> 1)
    return generator
