"""Continuous batching: a sequence that ends frees its slot for a waiting request."""

from __future__ import annotations

import random
from collections.abc import Sequence, Sized

import pytest
from torch import Tensor

from blip2cli.model.decoding.requests import GeneratedTokens
from blip2cli.model.decoding.session import DecoderSession, round_up
from blip2cli.model.families.opt.kv_slots import OptSlots
from blip2cli.model.families.opt.session import PROMPT_STEP, OptSession
from blip2cli.model.families.t5.kv_slots import T5Slots
from blip2cli.model.families.t5.session import T5Session
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.options import DecodeOptions
from tests.model.conftest import IMAGES, Pair
from tests.model.decoding.helpers import Limited, generate, open_session

QUESTIONS = (None, "a", "Question: what is left of the dog? Answer:", "two cats")
NEW = 12
GREEDY = DecodeOptions(max_new_tokens=NEW)


class Watch:
    """Counts the decode steps and prefills of a model."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.steps: list[int] = []  # slots in each step
        self.prefills: list[int] = []  # requests in each prefill
        for kind in (OptSlots, T5Slots):
            step, prefill = kind.decode_step, kind.prefill

            def watched_step(slots: object, tokens: Tensor, step: object = step) -> Tensor:
                self.steps.append(len(tokens))
                return step(slots, tokens)  # type: ignore[operator, no-any-return]

            def watched_prefill(
                slots: object,
                places: Sequence[int],
                requests: Sequence[object],
                prefill: object = prefill,
            ) -> list[int]:
                self.prefills.append(len(requests))
                return prefill(slots, places, requests)  # type: ignore[operator, no-any-return]

            monkeypatch.setattr(kind, "decode_step", watched_step)
            monkeypatch.setattr(kind, "prefill", watched_prefill)


def texts(
    pair: Pair, prompts: Sequence[Prompt], session: DecoderSession | Limited | None = None
) -> list[GeneratedTokens]:
    """The greedy text of each prompt."""
    return [found[0] for found in generate(pair, prompts, GREEDY, session)]


def test_waiting_requests_take_the_slots_of_finished_sequences(
    either: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    prompts = [Prompt(i % IMAGES, None, f"{i}") for i in range(3 * IMAGES)]
    expected = texts(either, prompts)
    lengths = [len(text.tokens) for text in expected]
    assert max(lengths) > 2 * min(lengths)  # else nothing could be won
    watch = Watch(monkeypatch)
    assert texts(either, prompts, Limited(open_session(either), 8)) == expected
    assert sum(watch.prefills) == len(prompts)
    assert len(watch.prefills) > 2
    # In whole batches of eight, each would take as many steps as its longest text.
    waiting = sum(max(lengths[i : i + 8]) for i in range(0, len(lengths), 8))
    assert sum(lengths) / 8 <= len(watch.steps) < waiting


def test_slots_are_prefilled_together(either: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Watch(monkeypatch)
    prompts = [Prompt(i % IMAGES, None, f"{i}") for i in range(40)]
    texts(either, prompts, Limited(open_session(either), 16))
    assert watch.prefills[0] == 16
    assert all(count >= 2 for count in watch.prefills[:-1])


def test_empty_slots_are_dropped_when_no_request_waits(
    opt: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(monkeypatch)
    found = texts(opt, [Prompt(i, None, f"{i}") for i in range(IMAGES)])
    lengths = [len(text.tokens) for text in found]
    assert watch.steps[0] == -(-IMAGES // 8) * 8
    for number, size in enumerate(watch.steps):
        running = sum(length > number for length in lengths)
        assert size == -(-running // 8) * 8
    assert watch.steps[-1] == 8


@pytest.mark.parametrize("count", [8, 16, 64])
def test_texts_do_not_depend_on_the_slots(either: Pair, count: int) -> None:
    prompts = [Prompt(i, text, f"{i} {text}") for i in range(IMAGES) for text in QUESTIONS]
    random.Random(count).shuffle(prompts)
    session = Limited(open_session(either), count)
    together = texts(either, prompts, session)
    for prompt, text in list(zip(prompts, together, strict=True))[::7]:
        assert texts(either, [prompt], session) == [text]  # log-probabilities too, exactly


def test_beam_searches_that_wait_find_the_same(
    either: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = DecodeOptions(max_new_tokens=NEW, num_beams=3, num_captions=2, length_penalty=0.5)
    prompts = [Prompt(i, text, "x") for i in range(IMAGES) for text in QUESTIONS]
    session = open_session(either)
    single = [generate(either, [prompt], options, session)[0] for prompt in prompts]
    watch = Watch(monkeypatch)
    assert generate(either, prompts, options, Limited(session, 12)) == single
    assert sum(watch.prefills) == 3 * len(prompts)
    assert max(watch.prefills) == 12
    # 64 slots hold 21 searches, and so there are 24 at a time.
    alike = [each for each in zip(prompts, single, strict=True) if each[0].text is None] * 2
    watch.prefills.clear()
    found = generate(either, [prompt for prompt, _ in alike], options, session)
    assert found == [sequences for _, sequences in alike]
    assert sum(watch.prefills) == 3 * len(alike)
    assert max(watch.prefills) == 3 * 24


def test_a_text_may_have_a_limit_of_its_own(either: Pair) -> None:
    free = texts(either, [Prompt(i, None, "x") for i in range(6)])
    limits = [2, 1, NEW + 5, 3, 1, 4]
    cut = texts(either, [Prompt(i, None, "x", limit) for i, limit in enumerate(limits)])
    for whole, part, limit in zip(free, cut, limits, strict=True):
        assert part.tokens == whole.tokens[:limit]


def test_a_prompt_given_twice_is_read_once(opt: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    question, session = QUESTIONS[2], open_session(opt)
    texts(opt, [Prompt(0, None, "a")], session)  # the images are read once, whatever is asked first
    rows = []
    layer = opt.ours.model.language_model.model.decoder.layers[0]
    forward = layer.fc1.forward

    def watch(hidden: Tensor) -> Tensor:
        rows.append(hidden.shape[0])
        return forward(hidden)

    monkeypatch.setattr(layer.fc1, "forward", watch)
    twice = texts(opt, [Prompt(0, question, "a"), Prompt(0, question, "b")], session)
    assert twice[0] == twice[1]
    both, rows = rows, []
    layer.fc1.forward = watch
    assert texts(opt, [Prompt(0, question, "a")], session) == twice[:1]
    assert both == rows


@pytest.mark.parametrize("most", [1, 8, 11, 1000])
@pytest.mark.parametrize("kind", ["opt", "t5"])
def test_announced_prompts_run_in_batches(
    request: pytest.FixtureRequest, kind: str, most: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    either: Pair = request.getfixturevalue(kind)
    question = "Question: what is left of the dog? Answer:"
    prompts = [Prompt(i, question, f"{i}") for i in range(IMAGES)]
    expected = texts(either, prompts)
    language, images = either.ours.model.language_model, either.features.language_inputs
    session: DecoderSession
    if kind == "opt":
        length = round_up(len(either.ours.codec.encode(question)) - 1, PROMPT_STEP)
        session = OptSession(language, images, 0, positions_together=most * length)
    else:
        session = T5Session(language, images, prompts_together=most)
    name = {"opt": "prompt_keys_values", "t5": "encode"}[kind]
    counts: list[int] = []
    read = getattr(session, name)

    def watched(first: Sized, *rest: object) -> object:
        counts.append(len(first))
        return read(first, *rest)

    monkeypatch.setattr(session, name, watched)
    eight = Limited(session, 8)
    assert texts(either, prompts, eight) == expected
    assert counts[0] == min(IMAGES, max(8, most))
    if most != 11 or kind == "t5":
        assert sum(counts) == IMAGES  # each once
    assert texts(either, prompts + prompts, eight) == expected + expected
