"""Rules for the scores of the next token: bit for bit those of transformers' logits processors."""

from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from torch import Tensor

from blip2cli.model.decoding.logits_rules import History, logits_rules
from blip2cli.options import DecodeOptions
from blip2cli.system.library_logging import silence_libraries

VOCABULARY, END, BEFORE = 12, (1, 3), 5

CASES: list[dict[str, Any]] = [
    {"repetition_penalty": 1.4},
    {"repetition_penalty": 0.7},
    {"no_repeat_ngram_size": 1},
    {"no_repeat_ngram_size": 2},
    {"no_repeat_ngram_size": 4},
    {"min_new_tokens": 3},
    {"temperature": 1.7},
    {"top_k": 4},
    {"top_k": 40},
    {"top_p": 0.6},
    {
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 2,
        "min_new_tokens": 2,
        "temperature": 0.6,
        "top_k": 6,
        "top_p": 0.9,
    },
]


def theirs(options: DecodeOptions, ids: list[int], scores: Tensor) -> Tensor:
    """What transformers' ``generate`` makes of the scores [V] behind ids."""
    with silence_libraries():
        from transformers.generation import logits_process as library

    each: list[Any] = []
    if options.repetition_penalty != 1.0:
        each.append(library.RepetitionPenaltyLogitsProcessor(options.repetition_penalty))
    if options.no_repeat_ngram_size:
        each.append(library.NoRepeatNGramLogitsProcessor(options.no_repeat_ngram_size))
    if options.min_new_tokens:
        least, end = options.min_new_tokens, torch.tensor(END)
        each.append(library.MinNewTokensLengthLogitsProcessor(BEFORE, least, end))
    if options.temperature:
        each.append(library.TemperatureLogitsWarper(options.temperature))
    if options.top_k:
        each.append(library.TopKLogitsWarper(options.top_k))
    if options.top_p:
        each.append(library.TopPLogitsWarper(options.top_p))
    return library.LogitsProcessorList(each)(torch.tensor([ids]), scores[None])[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("case", CASES, ids=lambda case: "-".join(map(str, case)))
def test_scores_are_those_of_transformers(case: dict[str, Any]) -> None:
    options, chance = DecodeOptions(**case), random.Random(str(case))
    # Rows of unequal lengths, of few words, so that they repeat.
    before = [tuple(chance.choices(range(VOCABULARY), k=BEFORE)) for _ in range(40)]
    tokens = [chance.choices(range(6), k=number % 9) for number in range(40)]
    scores = torch.randn(40, VOCABULARY)
    rule = logits_rules(options, END)
    assert rule is not None
    found = rule(History.of(before, tokens, torch.device("cpu")), scores.clone())
    assert not torch.equal(found, scores) or case == {"top_k": 40}
    for row, (ids, new) in enumerate(zip(before, tokens, strict=True)):
        assert torch.equal(found[row], theirs(options, [*ids, *new], scores[row])), row


@pytest.mark.parametrize("case", CASES[:5], ids=lambda case: "-".join(map(str, case)))
def test_ids_that_are_no_tokens_change_nothing(case: dict[str, Any]) -> None:
    rule = logits_rules(DecodeOptions(**case), END)
    assert rule is not None
    scores, device = torch.randn(2, VOCABULARY), torch.device("cpu")
    tokens = [[4, 5, 4], [7]]
    bare = rule(History.of([(2,), (2,)], tokens, device), scores)
    images = [(VOCABULARY,) * 3 + (2,), (VOCABULARY + 9,) * 8 + (2,)]
    assert torch.equal(rule(History.of(images, tokens, device), scores), bare)


def test_scores_decide_where_no_rule_is_asked_for() -> None:
    assert logits_rules(DecodeOptions(), END) is None
    assert logits_rules(DecodeOptions(min_new_tokens=3), ()) is None
    assert logits_rules(DecodeOptions(temperature=1.0), END) is None
