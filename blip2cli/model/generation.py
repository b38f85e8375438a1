"""From prompts about images to texts: greedy, drawn, or searched with beams."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from blip2cli.model.decoding.beam import search
from blip2cli.model.decoding.pipelined_decode import LateLoop, reads_late
from blip2cli.model.decoding.sampling import Written, generator_of, score_rules
from blip2cli.model.decoding.scheduler import Loop, Reader, Request, Rules, write
from blip2cli.model.tokenizer.prompts import Prompt
from blip2cli.options import DecodeOptions


def write_texts(
    reader: Reader,
    prompts: Sequence[Prompt],
    ids: Sequence[tuple[int, ...]],
    options: DecodeOptions,
    end: Sequence[int],
) -> list[list[Written]]:
    """``options.num_captions`` texts for each prompt with its ids; draws in their seeds' order.

    ``end`` are the tokens that end a text.
    """
    rules = _rules(options, end, reader.device)
    most = options.max_new_tokens
    requests = [
        Request(prompt.image, asked, min(most, prompt.max_new_tokens or most), most)
        for prompt, asked in zip(prompts, ids, strict=True)
    ]
    if options.num_beams > 1:
        return search(reader, requests, end, rules, options)
    if options.sampling:
        requests = [
            replace(request, generator=generator_of(options.seed, prompt.name, n))
            for request, prompt in zip(requests, prompts, strict=True)
            for n in range(options.num_captions)
        ]
    late = reads_late(reader.device, plain=rules is None and not options.sampling)
    texts = iter(write(reader, requests, end, rules, LateLoop if late else Loop))
    return [[next(texts) for _ in range(options.num_captions)] for _ in prompts]


def _rules(options: DecodeOptions, end: Sequence[int], device: torch.device) -> Rules | None:
    """None where the raw scores decide."""

    @functools.cache
    def rules(before: int) -> Any:
        return score_rules(options, end, before, device)

    return rules if rules(0) else None
