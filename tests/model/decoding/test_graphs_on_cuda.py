"""Slots and graphs on a pretended CUDA device."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blip2cli.api import Blip2
from blip2cli.model.families.opt.kv_slots import OptSlots
from blip2cli.model.layers import attention
from blip2cli.model.placement.graph_cache import graph_cache
from blip2cli.model.quantize.library_layers import LibraryLinear, Quantizer
from tests.model.device_tasks import IMAGES
from tests.pretend import Machine, pretended, what_is_missing
from tests.pretend_streams import Graph

MISSING = what_is_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

QUESTIONS = [
    "Where?",
    "What is in the picture?",
    "What colour is the big thing on the left?",
    "How many cats and dogs and cars are there in the picture, all together?",
    "Is there anything at all in this picture that looks as if it could be eaten by somebody?",
    (
        "Tell me at length about the picture and about every single thing that you can see in it, "
        "from the left to the right, in one sentence?"
    ),
]


def load(name: str, device: str) -> Blip2:
    return Blip2.load(name, device=device, dtype="float32", batch_size=8)


def captions(model: Blip2) -> list[str]:
    return [row["caption"] for row in model.caption(IMAGES, max_new_tokens=8)]


@pytest.fixture(scope="module")
def expected() -> list[str]:
    """Captions of the CPU."""
    return captions(load("tiny", "cpu"))


@pytest.fixture
def machine(expected: object) -> Iterator[Machine]:
    with pretended() as machine:
        yield machine
        gc.collect()
        assert machine.errors == []


def test_questions_of_six_lengths_are_replayed(monkeypatch: pytest.MonkeyPatch) -> None:
    def answers(model: Blip2) -> list[str]:
        return [row["answer"] for row in model.ask(IMAGES, QUESTIONS, max_new_tokens=6)]

    expected = answers(load("tiny", "cpu"))
    with pretended() as machine:
        gpu = load("tiny", "cuda")
        for _ in range(2):
            assert answers(gpu) == expected
        steps: list[int] = []
        step = OptSlots.decode_step

        def watched(slots: OptSlots, tokens: Tensor) -> Tensor:
            steps.append(len(tokens))
            return step(slots, tokens)

        monkeypatch.setattr(OptSlots, "decode_step", watched)
        replays = machine.replays
        gc.collect()
        held = machine.allocated
        assert answers(gpu) == expected
        gc.collect()
        assert steps == []  # each is a replay
        assert machine.replays > replays + 6
        assert machine.allocated == held
        assert machine.errors == []


@pytest.mark.parametrize("name", ["tiny", "tiny-t5"])
def test_attention_never_goes_to_cudnn(
    name: str, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    kernel = attention.scaled_dot_product_attention
    enabled: list[tuple[bool, ...]] = []
    sdp = torch.backends.cuda

    def watched(*arguments: Tensor, **options: Any) -> Tensor:
        enabled.append(
            (
                sdp.cudnn_sdp_enabled(),
                sdp.flash_sdp_enabled(),
                sdp.mem_efficient_sdp_enabled(),
                sdp.math_sdp_enabled(),
            )
        )
        return kernel(*arguments, **options)

    monkeypatch.setattr(attention, "scaled_dot_product_attention", watched)
    gpu = load(name, "cuda")
    for run in (
        lambda: gpu.embed(IMAGES[:1]),
        lambda: gpu.ask(IMAGES[:1], QUESTIONS[:2], max_new_tokens=2),
        lambda: gpu.embed_texts(["two dogs"]),
    ):
        enabled.clear()
        run()
        assert set(enabled) == {(False, True, True, True)}
    assert sdp.cudnn_sdp_enabled()  # for others it stays as it was


def test_the_memory_decides_how_many_are_decoded_together(machine: Machine) -> None:
    for gib, slots, images in ((100, 256, 512), (46, 256, 256), (24, 128, 256), (12, 64, 256)):
        machine.capacity = gib << 30
        gpu = Blip2.load("tiny", device="cuda", dtype="float32")
        graphs = gpu.model._graphs
        assert graphs is not None
        assert (graphs.max_slots, gpu.batch_size) == (slots, images)


def test_nothing_is_given_back_before_a_capture(
    machine: Machine, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied: list[object] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(None))
    gpu = load("tiny", "cuda")
    for _ in range(3):
        assert captions(gpu) == expected
    assert machine.replays > 10
    assert emptied == []


@pytest.mark.parametrize("bytes_left", [0, 20_000])
def test_memory_that_runs_out_while_capturing_ends_no_graphs(
    bytes_left: int, machine: Machine, expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = load("tiny", "cuda")
    capacity = machine.capacity
    assert captions(gpu) == expected
    begin, end = Graph.capture_begin, Graph.capture_end

    def short(graph: Graph, **options: Any) -> None:
        begin(graph, **options)
        machine.capacity = machine.allocated + bytes_left

    def over(graph: Graph) -> None:
        machine.capacity = capacity
        end(graph)

    with monkeypatch.context() as patch:
        patch.setattr(Graph, "capture_begin", short)
        patch.setattr(Graph, "capture_end", over)
        assert captions(gpu) == expected
    assert machine.replays == 0
    assert machine.captures == []
    assert captions(gpu) == expected
    assert machine.replays > 5
    assert gpu.model.trouble is None


def test_graphs_are_captured_again_after_memory_was_given_back(
    machine: Machine, expected: list[str]
) -> None:
    gpu = load("tiny", "cuda")
    for _ in range(2):
        captions(gpu)
    gpu.model.free()
    replays = machine.replays
    for _ in range(2):
        assert captions(gpu) == expected
    assert machine.replays > replays + 5
    assert gpu.model.trouble is None


def test_layers_of_bitsandbytes_are_never_captured(machine: Machine) -> None:
    model = load("tiny", "cuda").model.model
    assert graph_cache(model).failure is None
    block = model.language_model.model.decoder.layers[0]  # type: ignore[union-attr]
    quantizer = Quantizer("bitsandbytes", lambda layer: nn.Identity())
    block.fc1 = LibraryLinear(block.fc1, nn.Identity(), quantizer)
    assert graph_cache(model).failure == "layers of bitsandbytes cannot be captured"
