"""Beam search, by transformers' own ``generate`` on the language model."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from blip2cli.model.checkpoint import Family
from blip2cli.model.decode import Written, score_rules
from blip2cli.model.language import Prefix
from blip2cli.options import DecodeOptions

if TYPE_CHECKING:
    from transformers.models.blip_2.modeling_blip_2 import Blip2ForConditionalGeneration


class _Keeper:
    """Keeps, for each step, the raw log-probabilities of the tokens the search may choose.

    ``generate`` ranks beams by processed scores; what the texts report is the raw model's. The
    whole distribution of every step would be large, so only each row's best candidates stay:
    a search over B beams never looks past a row's (1 + end tokens) x B best.
    """

    def __init__(self, candidates: int) -> None:
        self.candidates = candidates
        self.raw: Tensor | None = None
        self.steps: list[list[dict[int, float]]] = []

    def before(self, history: Tensor, scores: Tensor) -> Tensor:
        self.raw = scores.clone()
        return scores

    def after(self, history: Tensor, scores: Tensor) -> Tensor:
        assert self.raw is not None
        best = scores.topk(min(self.candidates, scores.shape[-1]), dim=-1).indices
        values = self.raw.gather(1, best)
        self.steps.append(
            [
                dict(zip(ids, said, strict=True))
                for ids, said in zip(best.tolist(), values.tolist(), strict=True)
            ]
        )
        self.raw = None
        return scores


def beam_search(
    model: Blip2ForConditionalGeneration,
    family: Family,
    prefix: Prefix,
    options: DecodeOptions,
    end: Sequence[int],
) -> list[list[Written]]:
    """Search ``options.num_beams`` wide; the best ``options.num_return`` texts of each row.

    Texts come best first by the search's own score, the sum of processed log-probabilities over
    length to the power of the length penalty.
    """
    language: Any = model.language_model
    keeper = _Keeper(max(2, 1 + len(end)) * options.num_beams + 8)
    length = prefix.history.shape[1]
    rules = score_rules(options, end, length, prefix.embeds.device)
    inputs: dict[str, Any] = {
        "inputs_embeds": prefix.embeds,
        "attention_mask": prefix.embeds.new_ones(prefix.embeds.shape[:2], dtype=torch.long),
    }
    if family == "opt":
        inputs["input_ids"] = prefix.history
    found = language.generate(
        **inputs,
        num_beams=options.num_beams,
        num_return_sequences=options.num_return,
        max_new_tokens=options.max_new_tokens,
        length_penalty=options.length_penalty,
        do_sample=False,
        logits_processor=[keeper.before, *rules, keeper.after],
        return_dict_in_generate=True,
        output_scores=True,
    )
    texts = []
    origins = found.beam_indices.tolist()
    for tokens, origin in zip(found.sequences[:, length:].tolist(), origins, strict=True):
        texts.append(_read(tokens, origin, keeper.steps, end))
    count = options.num_return
    return [texts[i : i + count] for i in range(0, len(texts), count)]


def _read(
    tokens: list[int], origin: list[int], steps: list[list[dict[int, float]]], end: Sequence[int]
) -> Written:
    """One text of the search: its tokens up to the end token, and what the model gave them."""
    text = Written()
    for step, (token, row) in enumerate(zip(tokens, origin, strict=True)):
        if row < 0:  # past the end of this text
            break
        text.tokens.append(token)
        text.logprobs.append(steps[step][row][token])
        if token in end:
            break
    return text
