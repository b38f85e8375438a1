"""Decode steps captured once and replayed, over slots that are reused.

There is no GPU here: a tape of the same operations on the same tensors takes the graph's place.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from blip2cli.model.decoding.cuda_capture import POLICY, CapturePolicy
from blip2cli.model.decoding.cuda_graphs import (
    CachedSlots,
    CudaGraphCache,
    CudaGraphSession,
)
from blip2cli.model.decoding.requests import DecodeRequest, GeneratedTokens
from blip2cli.model.families.opt.kv_slots import OptSlots
from blip2cli.model.generation import Generated
from blip2cli.model.tokenizer.fill_prompt import Prompt
from blip2cli.options import DecodeOptions
from tests.model.conftest import IMAGES, Pair
from tests.model.decoding.helpers import Limited, generate, open_session
from tests.model.tape import TapeCapture

GREEDY = DecodeOptions(max_new_tokens=12)
DRAWN = DecodeOptions(max_new_tokens=8, temperature=1.2, num_captions=2)
BEAMS = DecodeOptions(max_new_tokens=5, num_beams=3, num_captions=2)
ONE = DecodeOptions(max_new_tokens=1)
SHORT = DecodeOptions(max_new_tokens=4)


def prompts(count: int, seed: int = 0) -> list[Prompt]:
    chance = random.Random(seed)
    return [Prompt(chance.randrange(IMAGES), None, f"{seed} {i}") for i in range(count)]


def of_lengths(*words: int) -> list[Prompt]:
    """Prompts of so many words, each of a slot shape of its own."""
    return [Prompt(0, "a " * count, f"{count}") for count in words]


def texts(
    pair: Pair, some: Sequence[Prompt], options: DecodeOptions = GREEDY
) -> list[list[Generated]]:
    """Of a batch of images that the model has not seen before."""
    return pair.ours.generate(pair.ours.features(pair.pixels), some, options)


def cached(graphs: CudaGraphCache) -> list[CachedSlots]:
    return [] if graphs._memory is None else list(graphs._memory.shapes.values())


def addresses(graphs: CudaGraphCache) -> list[int]:
    """Of keys and values, of tokens and of logits."""
    memory = graphs._memory
    assert memory is not None
    tensors: list[Any] = [*memory.arena._flat.values(), memory.tensors.tokens]
    return [each.data_ptr() for each in (*tensors, memory.tensors.logits)]


@pytest.fixture
def capture() -> TapeCapture:
    return TapeCapture()


@pytest.fixture
def graphs(capture: TapeCapture) -> CudaGraphCache:
    return CudaGraphCache(capture)


@pytest.mark.parametrize("pipelined", [False, True], ids=["direct", "pipelined"])
def test_replayed_steps_write_the_same(
    either: Pair,
    capture: TapeCapture,
    pipelined: bool,
) -> None:
    graphs = CudaGraphCache(capture, policy=CapturePolicy(on_demand=2, uncaptured=1000))
    batches = [prompts(count, count) for count in (60, 60, 23, 7, 40, 60)]
    expected = [generate(either, batch, GREEDY) for batch in batches]

    def replayed(batch: Sequence[Prompt]) -> list[list[GeneratedTokens]]:
        session = Limited(CudaGraphSession(open_session(either), graphs), 32)
        devices = {"cpu"} if pipelined else ()
        return generate(either, batch, GREEDY, session, pipelined_on=devices)

    assert replayed(batches[0]) == expected[0]
    assert capture.played == []  # few steps are not worth it
    assert replayed(batches[1]) == expected[1]
    assert capture.played[0] > 12  # 32 slots, refilled, then fewer
    (slots,) = cached(graphs)
    assert 32 in slots.replays
    before = addresses(graphs)
    played = sum(capture.played)
    for batch, same in zip(batches[2:], expected[2:], strict=True):
        assert replayed(batch) == same  # log-probabilities too, exactly
    assert cached(graphs) == [slots]
    assert addresses(graphs) == before
    assert {8, 32} < set(slots.replays) <= {8, 16, 32}
    assert sum(capture.played) > played + 40
    assert all(capture.played)
    assert graphs.failure is None


def test_a_large_batch_is_replayed_from_its_ninth_step_on(
    opt: Pair, graphs: CudaGraphCache, capture: TapeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = prompts(40)
    whole = DecodeOptions(max_new_tokens=12, min_new_tokens=12)  # so no slot gets empty
    expected = texts(opt, some, whole)
    monkeypatch.setattr(opt.ours, "_graphs", graphs)
    steps: list[int] = []
    step = OptSlots.decode_step

    def watched(slots: OptSlots, tokens: Tensor) -> Tensor:
        steps.append(len(tokens))
        return step(slots, tokens)

    monkeypatch.setattr(OptSlots, "decode_step", watched)
    assert texts(opt, some, whole) == expected
    assert steps[:8] == [40] * 8
    assert capture.played[0] > 1


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
    assert 32 in slots.replays  # the shape is known
    before = addresses(graphs)
    texts(opt, prompts(24))
    assert cached(graphs) == [slots]
    assert addresses(graphs) == before


def test_all_slots_and_a_few_are_captured_first_and_others_on_demand(
    opt: Pair, capture: TapeCapture
) -> None:
    graphs = CudaGraphCache(capture, policy=CapturePolicy(first=8, on_demand=3))
    session = opt.ours._session(opt.ours.features(opt.pixels))
    shape = session.slot_shape(DecodeRequest(0, (2,), 30, 30))
    captured = []
    for count in (32, 32, 16, 16, 8):
        with torch.inference_mode():
            slots = CudaGraphSession(session, graphs).open_slots(shape, count)
            slots.decode_step(torch.zeros(count, dtype=torch.long))
            slots.decode_step(torch.zeros(count, dtype=torch.long))
        del slots
        captured.append(list(cached(graphs)[0].replays))
    assert captured[:2] == [[], [32]]
    assert captured[2] == [32]  # which serves
    assert captured[3] == [32, 16]  # the fourth step of them
    assert captured[4] == [32, 16, 8]


def test_shapes_are_views_of_one_memory(
    either: Pair, graphs: CudaGraphCache, capture: TapeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = of_lengths(1, 17, 33, 49)
    expected = texts(either, some, SHORT)
    monkeypatch.setattr(either.ours, "_graphs", graphs)
    for _ in range(2):
        assert texts(either, some, SHORT) == expected
    assert len(cached(graphs)) == len(some)
    storages = {
        tensor.untyped_storage().data_ptr()
        for each in cached(graphs)
        for tensor in each.slots.buffers.whole[0]  # type: ignore[attr-defined]
    }
    assert len(storages) == 1
    before, captures, played = addresses(graphs), len(capture.played), sum(capture.played)

    def launched(*arguments: object) -> None:
        raise AssertionError("a step is not replayed")

    monkeypatch.setattr(type(cached(graphs)[0].slots), "decode_step", launched)
    assert texts(either, some, SHORT) == expected
    assert addresses(graphs) == before
    assert len(capture.played) == captures >= len(some)
    assert sum(capture.played) >= played + len(some)


def test_a_larger_memory_takes_the_place_of_one_that_is_outgrown(
    opt: Pair, graphs: CudaGraphCache, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = [texts(opt, of_lengths(count), ONE) for count in (1, 40, 1)]
    monkeypatch.setattr(opt.ours, "_graphs", graphs)
    held = []
    for count, same in zip((1, 40, 1), expected, strict=True):
        assert texts(opt, of_lengths(count), ONE) == same
        assert graphs._memory is not None
        held.append(sum(each.nbytes for each in graphs._memory.arena._flat.values()))
    assert held[0] < held[1] == held[2]


def test_the_cache_of_shapes_is_bounded(
    opt: Pair, capture: TapeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = CudaGraphCache(capture, policy=CapturePolicy(cached=3))
    monkeypatch.setattr(opt.ours, "_graphs", graphs)
    for text in of_lengths(21, 17, 13, 9, 5, 1):
        texts(opt, [text], ONE)
    assert len(cached(graphs)) == 3 < POLICY.cached
    opt.ours.free()
    assert cached(graphs) == []


def test_fewer_slots_are_opened_where_memory_was_short(
    opt: Pair, capture: TapeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    graphs = CudaGraphCache(capture, 256)
    monkeypatch.setattr(opt.ours, "_graphs", graphs)
    session = opt.ours._session(opt.ours.features(opt.pixels))
    limits = []
    for _ in range(4):
        limits.append(session.slot_limit)
        opt.ours.free()
    assert limits == [256, 128, 64, 64]


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


class Refusing(TapeCapture):
    """Captures ``good`` times; then it raises ``error`` as often as asked to."""

    def __init__(self, good: int, error: Callable[[], Exception], times: int = 1000) -> None:
        super().__init__()
        self.good, self.error, self.times = good, error, times
        self.tried = 0

    def capture(self, work: Callable[[], object]) -> Callable[[], object]:
        self.tried += 1
        if self.tried > self.good and self.times:
            self.times -= 1
            raise self.error()
        return super().capture(work)


@pytest.mark.parametrize("good", [0, 1])
def test_where_capture_fails_steps_run_without(
    either: Pair, good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = prompts(30)
    expected = texts(either, some)
    message = "operation not permitted when stream is capturing\nmore"
    capture = Refusing(good, lambda: RuntimeError(message))
    graphs = CudaGraphCache(capture, policy=CapturePolicy(on_demand=0))
    monkeypatch.setattr(either.ours, "_graphs", graphs)
    assert either.ours.trouble is None
    for _ in range(3):
        assert texts(either, some) == expected
    assert either.ours.trouble == (
        "decode steps run without CUDA graphs "
        "(RuntimeError: operation not permitted when stream is capturing)"
    )
    assert capture.tried == good + 1  # not tried again
    assert cached(graphs) == []


def test_memory_that_is_short_while_capturing_ends_nothing(
    opt: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = prompts(8)
    expected = texts(opt, some, SHORT)
    capture = Refusing(0, lambda: torch.OutOfMemoryError("CUDA out of memory."), times=4)
    monkeypatch.setattr(opt.ours, "_graphs", CudaGraphCache(capture))
    tried = []
    for _ in range(20):
        assert texts(opt, some, SHORT) == expected
        tried.append(capture.tried)
        assert opt.ours.trouble is None
    # Ever more seldom, and in the end it works.
    assert tried[:17] == [0, 1, 2, 2, *[3] * 4, *[4] * 8, 5]
    assert capture.played[0] > 5


def test_layers_that_cannot_be_captured_are_not(
    opt: Pair, capture: TapeCapture, monkeypatch: pytest.MonkeyPatch
) -> None:
    some = prompts(8)
    expected = texts(opt, some)
    why = "layers of bitsandbytes cannot be captured"
    monkeypatch.setattr(opt.ours, "_graphs", CudaGraphCache(capture, failure=why))
    for _ in range(3):
        assert texts(opt, some) == expected
    assert capture.played == []
    assert opt.ours.trouble == f"decode steps run without CUDA graphs ({why})"
