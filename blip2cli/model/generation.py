"""Generation of tokens by the options: greedy, sampled or beam search."""

from __future__ import annotations

from collections.abc import Container, Sequence
from dataclasses import dataclass, replace

from blip2cli.model.decoding.logits_rules import logits_rules
from blip2cli.model.decoding.pipelined_decode import PIPELINED_DEVICES, PipelinedScheduler
from blip2cli.model.decoding.requests import DecodeRequest, GeneratedTokens
from blip2cli.model.decoding.sampling import generator_of
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

    ``end`` are the tokens that end a sequence. On devices of the types ``pipelined_on`` decoding
    is pipelined, but for beam search.
    """
    rule = logits_rules(options, end)
    most = options.max_new_tokens
    requests = [
        DecodeRequest(prompt.image, prompt_ids, min(most, prompt.max_new_tokens or most), most)
        for prompt, prompt_ids in zip(prompts, ids, strict=True)
    ]
    if options.num_beams > 1:
        from blip2cli.model.decoding.beam import beam_search

        return beam_search(session, requests, end, rule, options)
    if options.sampling:
        requests = [
            replace(request, generator=generator_of(options.seed, prompt.name, n))
            for request, prompt in zip(requests, prompts, strict=True)
            for n in range(options.num_captions)
        ]
    pipelined = session.device.type in pipelined_on
    scheduler_class = PipelinedScheduler if pipelined else Scheduler
    sequences = iter(decode(session, requests, end, rule, scheduler_class))
    return [[next(sequences) for _ in range(options.num_captions)] for _ in prompts]
