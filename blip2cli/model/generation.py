"""Generation of tokens by the options: greedy, sampled or beam search."""

from __future__ import annotations

import functools
from collections.abc import Container, Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from blip2cli.model.decoding.pipelined_decode import (
    PIPELINED_DEVICES,
    PipelinedScheduler,
    is_pipelined,
)
from blip2cli.model.decoding.requests import DecodeRequest, GeneratedTokens
from blip2cli.model.decoding.sampling import ProcessorFactory, generator_of, logits_processors
from blip2cli.model.decoding.scheduler import Scheduler, decode
from blip2cli.model.decoding.session import DecoderSession
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.options import DecodeOptions


@dataclass(frozen=True)
class Generated:
    """One generated text."""

    text: str  # stripped; without the prompt and without special tokens
    tokens: tuple[int, ...]  # the new token ids, end token included when there is one
    logprob: float  # mean log-probability of ``tokens`` under the model's raw distribution


def generate_tokens(
    session: DecoderSession,
    prompts: Sequence[Prompt],
    ids: Sequence[tuple[int, ...]],
    options: DecodeOptions,
    end: Sequence[int],
    pipelined_on: Container[str] = PIPELINED_DEVICES,
) -> list[list[GeneratedTokens]]:
    """``options.num_captions`` sequences for each prompt with its ids; samples in seed order.

    ``end`` are the tokens that end a sequence. On devices of the types ``pipelined_on`` greedy
    decoding is pipelined.
    """
    processors = _processors(options, end, session.device)
    most = options.max_new_tokens
    requests = [
        DecodeRequest(prompt.image, prompt_ids, min(most, prompt.max_new_tokens or most), most)
        for prompt, prompt_ids in zip(prompts, ids, strict=True)
    ]
    if options.num_beams > 1:
        from blip2cli.model.decoding.beam import beam_search

        return beam_search(session, requests, end, processors, options)
    if options.sampling:
        requests = [
            replace(request, generator=generator_of(options.seed, prompt.name, n))
            for request, prompt in zip(requests, prompts, strict=True)
            for n in range(options.num_captions)
        ]
    greedy = processors is None and not options.sampling
    pipelined = is_pipelined(session.device, greedy, pipelined_on)
    scheduler_class = PipelinedScheduler if pipelined else Scheduler
    sequences = iter(decode(session, requests, end, processors, scheduler_class))
    return [[next(sequences) for _ in range(options.num_captions)] for _ in prompts]


def _processors(
    options: DecodeOptions, end: Sequence[int], device: torch.device
) -> ProcessorFactory | None:
    """None where the raw logits decide."""

    @functools.cache
    def processors(input_length: int) -> Any:
        return logits_processors(options, end, input_length, device)

    return processors if processors(0) else None
