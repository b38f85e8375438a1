"""Steps recorded once and replayed, over slots that stay where they are.

There is no GPU here: a tape of the same operations on the same tensors takes the graph's place.
"""

from __future__ import annotations

import gc
import random
from collections.abc import Callable, Sequence

import pytest
import torch

from blip2cli.model.decoding import pipelined_decode as late
from blip2cli.model.decoding import scheduler as slots
from blip2cli.model.decoding.cuda_graphs import KEPT, GraphReader, Graphs, Recorded
from blip2cli.model.tokenizer.prompts import Prompt
from blip2cli.model.wrapper import Generated
from blip2cli.options import DecodeOptions
from tests.model.conftest import IMAGES, Pair
from tests.model.tape import TapeRecord

GREEDY = DecodeOptions(max_new_tokens=12)
DRAWN = DecodeOptions(max_new_tokens=8, temperature=1.2, num_captions=2)
BEAMS = DecodeOptions(max_new_tokens=5, num_beams=3, num_captions=2)


def prompts(count: int, seed: int = 0) -> list[Prompt]:
    chance = random.Random(seed)
    return [Prompt(chance.randrange(IMAGES), None, f"{seed} {i}") for i in range(count)]


def texts(
    pair: Pair, asked: Sequence[Prompt], options: DecodeOptions = GREEDY
) -> list[list[Generated]]:
    """Of a batch of images that the model has not seen before."""
    return pair.ours.generate(pair.ours.features(pair.pixels), asked, options)


def kept(graphs: Graphs) -> list[Recorded]:
    gc.collect()
    return list(graphs._kept.values())


def addresses(recorded: Recorded) -> list[int]:
    room = recorded.slots.room  # type: ignore[attr-defined]
    held = [tensor.data_ptr() for tensors in room.whole for tensor in tensors]
    return [*held, recorded.tokens.data_ptr(), recorded.scores.data_ptr()]  # type: ignore[union-attr]


@pytest.fixture
def record() -> TapeRecord:
    return TapeRecord()


@pytest.fixture
def graphs(record: TapeRecord) -> Graphs:
    return Graphs(record)


@pytest.mark.parametrize("read_late", [False, True], ids=["direct", "late"])
def test_replayed_steps_write_the_same(
    either: Pair,
    graphs: Graphs,
    record: TapeRecord,
    read_late: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    batches = [prompts(count, count) for count in (60, 60, 23, 7, 40, 60)]
    wanted = [texts(either, batch) for batch in batches]
    if read_late:
        monkeypatch.setattr(late, "DEVICES", {"cpu"})
    monkeypatch.setattr(slots, "SLOTS", 32)
    monkeypatch.setattr(either.ours, "_graphs", graphs)
    assert texts(either, batches[0]) == wanted[0]
    assert record.played == []  # one batch is not worth it
    assert texts(either, batches[1]) == wanted[1]
    assert len(record.played) == 3
    assert record.played[0] > 12  # 32 slots, refilled
    assert record.played[1] > 0  # then fewer
    (recorded,) = kept(graphs)
    assert sorted(recorded.replays) == [8, 16, 32]
    before = addresses(recorded)
    played = sum(record.played)
    for batch, same in zip(batches[2:], wanted[2:], strict=True):
        assert texts(either, batch) == same  # log-probabilities too, exactly
    assert kept(graphs) == [recorded]
    assert addresses(recorded) == before
    assert sum(record.played) > played + 40
    assert all(record.played)
    assert graphs.failure is None


@pytest.mark.parametrize("options", [DRAWN, BEAMS], ids=["drawn", "searched"])
def test_whatever_chooses_the_tokens(
    either: Pair,
    graphs: Graphs,
    record: TapeRecord,
    options: DecodeOptions,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    asked = prompts(12)
    wanted = texts(either, asked, options)
    monkeypatch.setattr(either.ours, "_graphs", graphs)
    for _ in range(3):
        assert texts(either, asked, options) == wanted
    assert sum(record.played) > 5


def test_more_texts_than_before_get_new_slots(
    opt: Pair, graphs: Graphs, record: TapeRecord, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opt.ours, "_graphs", graphs)
    for _ in range(2):
        texts(opt, prompts(8))
    assert [each.count for each in kept(graphs)] == [8]
    texts(opt, prompts(30))
    (recorded,) = kept(graphs)
    assert recorded.count == 32
    assert not recorded.replays
    texts(opt, prompts(24))
    assert sorted(recorded.replays) == [8, 16, 32]


def test_shapes_are_kept_within_bounds(
    opt: Pair, graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(opt.ours, "_graphs", graphs)
    asked = ["a " * count for count in (1, 5, 9, 13, 17, 21)]
    for text in asked:
        texts(opt, [Prompt(0, text, "x")], DecodeOptions(max_new_tokens=1))
    assert len(kept(graphs)) == KEPT
    opt.ours.free()
    assert kept(graphs) == []
    for text in asked:
        texts(opt, [Prompt(0, text, "x")], DecodeOptions(max_new_tokens=1))
    assert len(kept(graphs)) == KEPT // 2


def test_slots_in_use_are_not_given_twice(opt: Pair, graphs: Graphs) -> None:
    features = opt.ours.features(opt.pixels)
    reader = opt.ours._reader(features)
    request = slots.Request(0, (2,), 4, 4)
    shape = reader.shape(request)
    with torch.inference_mode():
        twice = [GraphReader(reader, graphs).open(shape, 8) for _ in range(2)]
        for image, each in enumerate(twice):
            each.fill([0], [slots.Request(image, (2,), 4, 4)])
        tokens = [each.step(torch.full((8,), 2))[0] for each in twice]
        for image, raw in enumerate(tokens):
            alone = reader.open(shape, 8)
            alone.fill([0], [slots.Request(image, (2,), 4, 4)])
            assert torch.equal(alone.step(torch.full((8,), 2))[0], raw)
    assert not torch.equal(*tokens)


def test_kept_slots_hold_no_images(
    either: Pair, graphs: Graphs, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(either.ours, "_graphs", graphs)
    texts(either, prompts(8))
    (recorded,) = kept(graphs)
    assert not hasattr(recorded.slots, "reader")


@pytest.mark.parametrize("good", [0, 1])
def test_where_recording_fails_steps_run_as_before(
    either: Pair, good: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = prompts(30)
    wanted = texts(either, asked)
    tape, tried = TapeRecord(), []

    def record(work: Callable[[], object]) -> Callable[[], object]:
        tried.append(work)
        if len(tried) > good:
            work()
            raise RuntimeError("operation not permitted when stream is capturing\nmore")
        return tape(work)

    monkeypatch.setattr(either.ours, "_graphs", Graphs(record))
    assert either.ours.trouble is None
    for _ in range(3):
        assert texts(either, asked) == wanted
    assert either.ours.trouble == (
        "decode steps run without CUDA graphs "
        "(RuntimeError: operation not permitted when stream is capturing)"
    )
    assert len(tried) == good + 1  # not tried again
    assert sum(tape.played) == 0
