"""Tokens read one step late: the texts are those of the direct loop."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from blip2cli.model.decoding import pipelined_decode as late
from blip2cli.model.decoding import scheduler as slots
from blip2cli.model.decoding.pipelined_decode import LateLoop
from blip2cli.model.decoding.sampling import Written
from blip2cli.model.decoding.scheduler import Loop, Request, Shape, write
from blip2cli.model.tokenizer.prompts import Prompt
from blip2cli.options import DecodeOptions
from tests.model.conftest import IMAGES, Pair

END, START, WORDS = 1, 2, 50


class Script:
    """A language model whose texts are known beforehand, one for each image."""

    device = torch.device("cpu")

    def __init__(self, lengths: Sequence[int], seed: int) -> None:
        chance = random.Random(seed)
        # END comes as the last token, never before.
        self.texts = [
            [*(chance.randrange(3, WORDS) for _ in range(length - 1)), END] for length in lengths
        ]
        self.steps: list[int] = []  # slots in each

    def shape(self, request: Request) -> Shape:
        return Shape(0, 64)

    def history(self, request: Request) -> tuple[int, ...]:
        return ()

    at_once = 0

    def expect(self, pairs: Sequence[slots.Pair]) -> None:
        pass

    def padded(self, prompt: int, tokens: int) -> int:
        raise NotImplementedError

    def open(self, shape: Shape, count: int) -> Played:
        return Played(self, count)

    def follow(self, *arguments: Any) -> Tensor:
        raise NotImplementedError

    def scores(self, hidden: Tensor) -> Tensor:
        raise NotImplementedError


class Played:
    """Its slots; they hold what is fed to them against what they said."""

    def __init__(self, script: Script, count: int) -> None:
        self.script = script
        self.at: list[tuple[int, int, int] | None] = [None] * count  # image, tokens said, limit

    def fill(self, places: Sequence[int], requests: Sequence[Request]) -> list[int]:
        for place, request in zip(places, requests, strict=True):
            self.at[place] = (request.image, 0, request.limit)
        return [START] * len(places)

    def step(self, tokens: Tensor) -> Tensor:
        self.script.steps.append(len(tokens))
        scores = torch.zeros(len(tokens), WORDS)
        for slot, (token, at) in enumerate(zip(tokens.tolist(), self.at, strict=True)):
            if at is None or at[1] >= min(at[2], len(self.script.texts[at[0]])):
                continue  # nobody's text
            image, said, limit = at
            assert token == (START if said == 0 else self.script.texts[image][said - 1])
            scores[slot] = torch.arange(WORDS) * 0.01 + image / 7
            scores[slot, self.script.texts[image][said]] += 1 + said / 5
            self.at[slot] = (image, said + 1, limit)
        return scores

    def move(self, into: Sequence[int], origin: Sequence[int]) -> None:
        raise NotImplementedError

    def keep(self, kept: Sequence[int]) -> None:
        self.at = [self.at[slot] for slot in kept]


def texts(kind: type[Loop], script: Script, limits: Sequence[int]) -> list[Written]:
    requests = [Request(image, (START,), limit, 20) for image, limit in enumerate(limits)]
    return write(script, requests, (END,), None, kind)


@pytest.mark.parametrize("seed", range(60))
def test_texts_of_any_lengths_are_those_of_the_direct_loop(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    chance = random.Random(seed)
    monkeypatch.setattr(slots, "SLOTS", chance.choice([8, 16, 64]))
    count, longest = chance.randrange(1, 80), chance.choice([1, 2, 5, 15])
    lengths = [chance.randint(1, longest) for _ in range(count)]
    limits = [chance.randint(1, longest) for _ in range(count)]
    script = Script(lengths, seed)
    found = texts(LateLoop, script, limits)
    for text, wanted, limit in zip(found, script.texts, limits, strict=True):
        assert text.tokens == wanted[:limit]
    assert found == texts(Loop, Script(lengths, seed), limits)  # log-probabilities too, exactly


def test_no_step_is_lost_where_limits_end_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "SLOTS", 8)
    limits = [random.Random(1).randint(3, 9) for _ in range(50)]
    direct, later = Script([20] * 50, 3), Script([20] * 50, 3)
    assert texts(Loop, direct, limits) == texts(LateLoop, later, limits)
    assert later.steps == direct.steps


def test_an_end_is_noticed_one_step_late() -> None:
    script = Script([4] * 3, 0)
    found = texts(LateLoop, script, [10] * 3)
    assert [len(text.tokens) for text in found] == [4, 4, 4]
    assert len(script.steps) == 5


def test_the_next_step_runs_before_the_last_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    script, order = Script([5, 3], 0), []

    class Watched(late.Readback):
        def __init__(self, *tensors: Tensor) -> None:
            super().__init__(*tensors)
            self.number = len(script.steps)

        def values(self) -> list[Any]:
            order.append((self.number, len(script.steps)))
            return super().values()

    monkeypatch.setattr(late, "Readback", Watched)
    texts(LateLoop, script, [10, 10])
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
    wanted = either.ours.generate(either.features, prompts, options)
    assert len({len(found[0].tokens) for found in wanted}) > 3
    monkeypatch.setattr(slots, "SLOTS", count)
    monkeypatch.setattr(late, "DEVICES", {"cpu"})
    runs = []
    run = LateLoop.run
    monkeypatch.setattr(LateLoop, "run", lambda loop: (runs.append(loop), run(loop)))
    assert either.ours.generate(either.features, prompts, options) == wanted
    assert runs


@pytest.mark.parametrize(
    "options",
    [
        DecodeOptions(max_new_tokens=4, temperature=1.3),
        DecodeOptions(max_new_tokens=4, repetition_penalty=1.3),
        DecodeOptions(max_new_tokens=4, num_beams=2),
    ],
    ids=["drawn", "ruled", "searched"],
)
def test_what_the_host_decides_is_not_read_late(
    opt: Pair, options: DecodeOptions, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(late, "DEVICES", {"cpu"})
    monkeypatch.setattr(LateLoop, "run", lambda loop: pytest.fail("it was"))
    assert opt.ours.generate(opt.features, [Prompt(0, None, "x")], options)


def test_only_on_cuda() -> None:
    assert late.reads_late(torch.device("cuda:1"), plain=True)
    assert not late.reads_late(torch.device("cuda:1"), plain=False)
    assert not late.reads_late(torch.device("cpu"), plain=True)
