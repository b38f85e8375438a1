"""Pipelined decoding: the tokens are those of the plain scheduler."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from blip2cli.model.decoding import pipelined_decode
from blip2cli.model.decoding.kv_slots import SlotShape
from blip2cli.model.decoding.pipelined_decode import PipelinedScheduler
from blip2cli.model.decoding.requests import DecodeRequest, GeneratedTokens, ImagePrompt
from blip2cli.model.decoding.scheduler import Scheduler, decode
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.options import DecodeOptions
from tests.model.conftest import IMAGES, Pair
from tests.model.decoding.helpers import Limited, generate, open_session

END, START, WORDS = 1, 2, 50


class ScriptedSession:
    """A decoder session whose texts are known, one for each image."""

    device = torch.device("cpu")

    def __init__(self, lengths: Sequence[int], seed: int, slot_limit: int = 0) -> None:
        self.slot_limit = slot_limit
        self.streamed_slots = 0
        chance = random.Random(seed)
        # END comes as the last token, never before.
        self.texts = [
            [*(chance.randrange(3, WORDS) for _ in range(length - 1)), END] for length in lengths
        ]
        self.steps: list[int] = []  # slots in each

    def slot_shape(self, request: DecodeRequest) -> SlotShape:
        return SlotShape(0, 64)

    def input_ids(self, request: DecodeRequest) -> tuple[int, ...]:
        return ()

    def will_prefill(self, prompts: Sequence[ImagePrompt]) -> None:
        pass

    def forget_announced(self) -> None:
        pass

    def padded_length(self, prompt_length: int, length: int) -> int:
        raise AssertionError("greedy decoding does not ask for this")

    def open_slots(self, shape: SlotShape, count: int) -> ScriptedSlots:
        return ScriptedSlots(self, count)

    def continuation_states(self, *arguments: Any) -> Tensor:
        raise AssertionError("greedy decoding does not ask for this")

    def logits(self, hidden: Tensor) -> Tensor:
        raise AssertionError("greedy decoding does not ask for this")


class ScriptedSlots:
    """Its slots; they compare the tokens they are given with those of the text."""

    def __init__(self, script: ScriptedSession, count: int) -> None:
        self.script = script
        self.at: list[tuple[int, int, int] | None] = [
            None
        ] * count  # image, tokens generated, limit

    def prefill(self, places: Sequence[int], requests: Sequence[DecodeRequest]) -> list[int]:
        for place, request in zip(places, requests, strict=True):
            self.at[place] = (request.image, 0, request.max_tokens)
        return [START] * len(places)

    def decode_step(self, tokens: Tensor) -> Tensor:
        self.script.steps.append(len(tokens))
        scores = torch.zeros(len(tokens), WORDS)
        for slot, (token, at) in enumerate(zip(tokens.tolist(), self.at, strict=True)):
            if at is None or at[1] >= min(at[2], len(self.script.texts[at[0]])):
                continue  # an empty slot
            image, done, limit = at
            assert token == (START if done == 0 else self.script.texts[image][done - 1])
            scores[slot] = torch.arange(WORDS) * 0.01 + image / 7
            scores[slot, self.script.texts[image][done]] += 1 + done / 5
            self.at[slot] = (image, done + 1, limit)
        return scores

    def reorder(self, into: Sequence[int], origin: Sequence[int], decoded: int) -> None:
        raise AssertionError("greedy decoding does not ask for this")

    def compact(self, slots: Sequence[int]) -> None:
        self.at = [self.at[slot] for slot in slots]


def texts(
    kind: type[Scheduler], script: ScriptedSession, limits: Sequence[int]
) -> list[GeneratedTokens]:
    requests = [DecodeRequest(image, (START,), limit, 20) for image, limit in enumerate(limits)]
    return decode(script, requests, (END,), None, kind)


@pytest.mark.parametrize("seed", range(60))
def test_texts_of_any_lengths_are_those_of_the_plain_scheduler(seed: int) -> None:
    chance = random.Random(seed)
    slots = chance.choice([8, 16, 64])
    count, longest = chance.randrange(1, 80), chance.choice([1, 2, 5, 15])
    lengths = [chance.randint(1, longest) for _ in range(count)]
    limits = [chance.randint(1, longest) for _ in range(count)]
    script = ScriptedSession(lengths, seed, slots)
    found = texts(PipelinedScheduler, script, limits)
    for text, expected, limit in zip(found, script.texts, limits, strict=True):
        assert text.tokens == expected[:limit]
    # Log-probabilities too, exactly.
    assert found == texts(Scheduler, ScriptedSession(lengths, seed, slots), limits)


def test_no_step_is_lost_where_limits_end_the_texts() -> None:
    limits = [random.Random(1).randint(3, 9) for _ in range(50)]
    direct, pipelined = (ScriptedSession([20] * 50, 3, slot_limit=8) for _ in range(2))
    assert texts(Scheduler, direct, limits) == texts(PipelinedScheduler, pipelined, limits)
    assert pipelined.steps == direct.steps


def test_an_end_is_noticed_one_step_behind() -> None:
    script = ScriptedSession([4] * 3, 0)
    found = texts(PipelinedScheduler, script, [10] * 3)
    assert [len(text.tokens) for text in found] == [4, 4, 4]
    assert len(script.steps) == 5


def test_the_next_step_runs_before_the_last_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    script, order = ScriptedSession([5, 3], 0), []

    class Watched(pipelined_decode.AsyncCopy):
        def __init__(self, *tensors: Tensor) -> None:
            super().__init__(*tensors)
            self.number = len(script.steps)

        def values(self) -> list[Any]:
            order.append((self.number, len(script.steps)))
            return super().values()

    monkeypatch.setattr(pipelined_decode, "AsyncCopy", Watched)
    texts(PipelinedScheduler, script, [10, 10])
    assert order == [(1, 2), (2, 3), (3, 4), (4, 5), (5, 6), (6, 6)]


@pytest.mark.parametrize("count", [8, 64])
def test_a_models_texts_are_the_same(
    either: Pair, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(count)
    prompts = [
        Prompt(image, text, f"{image} {text}", chance.choice([None, 1, 3, 9]))
        for image in range(IMAGES)
        for text in (None, "Question: what is left of the dog? Answer:")
    ]
    options = DecodeOptions(max_new_tokens=12)
    expected = generate(either, prompts, options)
    assert len({len(found[0].tokens) for found in expected}) > 3
    runs = []
    run = PipelinedScheduler.run
    monkeypatch.setattr(PipelinedScheduler, "run", lambda self: (runs.append(self), run(self)))
    session = Limited(open_session(either), count)
    assert generate(either, prompts, options, session, pipelined_on={"cpu"}) == expected
    assert runs


RULES: dict[str, Any] = {
    "repetition_penalty": 1.3,
    "no_repeat_ngram_size": 2,
    "min_new_tokens": 4,
}


@pytest.mark.parametrize(
    "options",
    [
        DecodeOptions(max_new_tokens=8, temperature=1.3, num_captions=2),
        DecodeOptions(max_new_tokens=8, top_k=20, top_p=0.9, temperature=1.5, **RULES),
        DecodeOptions(max_new_tokens=8, **RULES),
    ],
    ids=["drawn", "drawn by rules", "ruled"],
)
def test_drawn_and_ruled_texts_are_the_same(either: Pair, options: DecodeOptions) -> None:
    # Of unequal lengths, in few slots, so that these are refilled and dropped.
    prompts = [
        Prompt(image, text, f"{image} {text}", 1 + (5 * image) % 9)
        for image in range(IMAGES)
        for text in (None, "a", "Question: what is left of the dog? Answer:")
    ]
    expected = generate(either, prompts, options)
    for slots in (8, 64):
        session = Limited(open_session(either), slots)
        assert generate(either, prompts, options, session, pipelined_on={"cpu"}) == expected


def test_only_on_cuda() -> None:
    assert set(pipelined_decode.PIPELINED_DEVICES) == {"cuda"}
