"""Decode steps captured once and replayed, over slots that are reused.

There is no GPU here: a tape of the same operations on the same tensors takes the graph's place.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Sequence

import pytest
import torch

from blip2cli.model.decoding.cuda_graphs import (
    CACHED,
    CachedSlots,
    CudaGraphCache,
    CudaGraphSession,
)
from blip2cli.model.decoding.requests import DecodeRequest, GeneratedTokens
from blip2cli.model.generation import Generated
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.options import DecodeOptions
from tests.model.conftest import IMAGES, Pair
from tests.model.decoding.helpers import Limited, generate, open_session
from tests.model.tape import TapeCapture

GREEDY = DecodeOptions(max_new_tokens=12)
DRAWN = DecodeOptions(max_new_tokens=8, temperature=1.2, num_captions=2)
BEAMS = DecodeOptions(max_new_tokens=5, num_beams=3, num_captions=2)


def prompts(count: int, seed: int = 0) -> list[Prompt]:
    chance = random.Random(seed)
    return [Prompt(chance.randrange(IMAGES), None, f"{seed} {i}") for i in range(count)]


def texts(
    pair: Pair, some: Sequence[Prompt], options: DecodeOptions = GREEDY
) -> list[list[Generated]]:
    """Of a batch of images that the model has not seen before."""
    return pair.ours.generate(pair.ours.features(pair.pixels), some, options)


def cached(graphs: CudaGraphCache) -> list[CachedSlots]:
    gc.collect()
    return list(graphs._cached.values())


def addresses(slots: CachedSlots) -> list[int]:
    buffers = slots.slots.buffers  # type: ignore[attr-defined]
    held = [tensor.data_ptr() for tensors in buffers.whole for tensor in tensors]
    return [*held, slots.tokens.data_ptr(), slots.logits.data_ptr()]  # type: ignore[union-attr]


@pytest.fixture
def capture() -> TapeCapture:
    return TapeCapture()


@pytest.fixture
def graphs(capture: TapeCapture) -> CudaGraphCache:
    return CudaGraphCache(capture)


@pytest.mark.parametrize("pipelined", [False, True], ids=["direct", "pipelined"])
def test_replayed_steps_write_the_same(
    either: Pair,
    graphs: CudaGraphCache,
    capture: TapeCapture,
    pipelined: bool,
) -> None:
    batches = [prompts(count, count) for count in (60, 60, 23, 7, 40, 60)]
    expected = [generate(either, batch, GREEDY) for batch in batches]

    def replayed(batch: Sequence[Prompt]) -> list[list[GeneratedTokens]]:
        session = Limited(CudaGraphSession(open_session(either), graphs), 32)
        devices = {"cpu"} if pipelined else ()
        return generate(either, batch, GREEDY, session, pipelined_on=devices)

    assert replayed(batches[0]) == expected[0]
    assert capture.played == []  # one batch is not worth it
    assert replayed(batches[1]) == expected[1]
    assert len(capture.played) == 3
    assert capture.played[0] > 12  # 32 slots, refilled
    assert capture.played[1] > 0  # then fewer
    (slots,) = cached(graphs)
    assert sorted(slots.replays) == [8, 16, 32]
    before = addresses(slots)
    played = sum(capture.played)
    for batch, same in zip(batches[2:], expected[2:], strict=True):
        assert replayed(batch) == same  # log-probabilities too, exactly
    assert cached(graphs) == [slots]
    assert addresses(slots) == before
    assert sum(capture.played) > played + 40
    assert all(capture.played)
    assert graphs.failure is None


@pytest.mark.parametrize("options", [DRAWN, BEAMS], ids=["drawn", "searched"])
def test_replayed_steps_serve_sampling_and_beam_search(
    either: Pair,
    graphs: CudaGraphCache,
    capture: TapeCapture,
    options: DecodeOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    some = prompts(12)
    expected = texts(either, some, options)
    monkeypatch.setattr(either.ours, "_graphs", graphs)
    for _ in range(3):
        assert texts(either, some, options) == expected
    assert sum(capture.played) > 5


def test_more_texts_than_before_get_new_slots(
    opt: Pair, graphs: CudaGraphCache, capture: TapeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opt.ours, "_graphs", graphs)
    for _ in range(2):
        texts(opt, prompts(8))
    assert [each.count for each in cached(graphs)] == [8]
    texts(opt, prompts(30))
    (slots,) = cached(graphs)
    assert slots.count == 32
    assert not slots.replays
    texts(opt, prompts(24))
    assert sorted(slots.replays) == [8, 16, 32]


def test_the_cache_of_slots_is_bounded(
    opt: Pair, graphs: CudaGraphCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opt.ours, "_graphs", graphs)
    some = ["a " * count for count in (1, 5, 9, 13, 17, 21)]
    for text in some:
        texts(opt, [Prompt(0, text, "x")], DecodeOptions(max_new_tokens=1))
    assert len(cached(graphs)) == CACHED
    opt.ours.free()
    assert cached(graphs) == []
    for text in some:
        texts(opt, [Prompt(0, text, "x")], DecodeOptions(max_new_tokens=1))
    assert len(cached(graphs)) == CACHED // 2


def test_slots_in_use_are_not_given_twice(opt: Pair, graphs: CudaGraphCache) -> None:
    features = opt.ours.features(opt.pixels)
    session = opt.ours._session(features)
    request = DecodeRequest(0, (2,), 4, 4)
    shape = session.slot_shape(request)
    with torch.inference_mode():
        twice = [CudaGraphSession(session, graphs).open_slots(shape, 8) for _ in range(2)]
        for image, each in enumerate(twice):
            each.prefill([0], [DecodeRequest(image, (2,), 4, 4)])
        tokens = [each.decode_step(torch.full((8,), 2))[0] for each in twice]
        for image, raw in enumerate(tokens):
            single = session.open_slots(shape, 8)
            single.prefill([0], [DecodeRequest(image, (2,), 4, 4)])
            assert torch.equal(single.decode_step(torch.full((8,), 2))[0], raw)
    assert not torch.equal(*tokens)


def test_cached_slots_hold_no_images(
    either: Pair, graphs: CudaGraphCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(either.ours, "_graphs", graphs)
    texts(either, prompts(8))
    (slots,) = cached(graphs)
    assert not hasattr(slots.slots, "session")


@pytest.mark.parametrize("good", [0, 1])
def test_where_capture_fails_steps_run_without(
    either: Pair, good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = prompts(30)
    expected = texts(either, some)
    tape, tried = TapeCapture(), []

    def capture(work: Callable[[], object]) -> Callable[[], object]:
        tried.append(work)
        if len(tried) > good:
            work()
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return tape(work)

    monkeypatch.setattr(either.ours, "_graphs", CudaGraphCache(capture))
    assert either.ours.trouble is None
    for _ in range(3):
        assert texts(either, some) == expected
    assert either.ours.trouble == (
        "decode steps run without CUDA graphs "
        "(RuntimeError: operation not permitted when stream is capturing)"
    )
    assert len(tried) == good + 1  # not tried again
    assert sum(tape.played) == 0
