"""Slots and graphs on a pretended CUDA device."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from blip2cli.api import Blip2
from blip2cli.model.families.opt.kv_slots import OptSlots
from blip2cli.model.layers import attention
from blip2cli.model.layers.linear import Linear
from blip2cli.model.placement.batch_size import auto_batch_size
from blip2cli.model.placement.graph_cache import graph_cache
from blip2cli.model.quantize.library_layers import LibraryLinear, Quantizer
from tests.pretend import Machine, pretended, what_is_missing
from tests.pretend_streams import Graph

MISSING = what_is_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))

IMAGES = sorted(map(str, (Path(__file__).parents[3] / "sample_images").rglob("*.*")))[:3]
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
    return [row["caption"] for row in model.caption(IMAGES, max_new_tokens=5)]


def answers(model: Blip2) -> list[str]:
    return [row["answer"] for row in model.ask(IMAGES, QUESTIONS, max_new_tokens=3)]


@dataclass(frozen=True)
class OnCuda:
    """A model on a pretended device, and what it writes on the CPU."""

    machine: Machine
    model: Blip2
    captions: list[str]
    answers: list[str]


@pytest.fixture(scope="module")
def loaded() -> Iterator[OnCuda]:
    cpu = load("tiny", "cpu")
    expected = captions(cpu), answers(cpu)
    with pretended() as machine:
        yield OnCuda(machine, load("tiny", "cuda"), *expected)
        gc.collect()
        assert machine.errors == []


@pytest.fixture
def cuda(loaded: OnCuda) -> Iterator[OnCuda]:
    """Without graphs yet."""
    capacity = loaded.machine.capacity
    loaded.machine.replays = 0
    loaded.model.model._graphs = graph_cache(loaded.model.model.model)
    yield loaded
    assert loaded.machine.errors == []
    loaded.machine.capacity = capacity


def test_questions_of_six_lengths_are_replayed(
    cuda: OnCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(2):
        assert answers(cuda.model) == cuda.answers
    steps: list[int] = []
    step = OptSlots.decode_step

    def watched(slots: OptSlots, tokens: Tensor) -> Tensor:
        steps.append(len(tokens))
        return step(slots, tokens)

    monkeypatch.setattr(OptSlots, "decode_step", watched)
    replays = cuda.machine.replays
    gc.collect()
    held = cuda.machine.allocated
    assert answers(cuda.model) == cuda.answers
    gc.collect()
    assert steps == []  # each is a replay
    assert cuda.machine.replays > replays + 6
    assert cuda.machine.allocated == held


@pytest.mark.parametrize("name", ["tiny", "tiny-t5"])
def test_attention_never_goes_to_cudnn(
    name: str, cuda: OnCuda, monkeypatch: pytest.MonkeyPatch
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
    gpu = cuda.model if name == "tiny" else load(name, "cuda")
    for run in (
        lambda: gpu.embed(IMAGES[:1]),
        lambda: gpu.ask(IMAGES[:1], QUESTIONS[:2], max_new_tokens=2),
        lambda: gpu.embed_texts(["two dogs"]),
    ):
        enabled.clear()
        run()
        assert set(enabled) == {(False, True, True, True)}
    assert sdp.cudnn_sdp_enabled()  # for others it stays as it was


def test_the_memory_decides_how_many_are_decoded_together(cuda: OnCuda) -> None:
    for gib, slots, images in ((100, 256, 512), (46, 256, 256), (24, 128, 256), (12, 64, 256)):
        cuda.machine.capacity = gib << 30
        model = cuda.model.model
        assert graph_cache(model.model).max_slots == slots
        assert auto_batch_size(model) == images


def test_nothing_is_given_back_before_a_capture(
    cuda: OnCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    emptied: list[object] = []
    monkeypatch.setattr(torch.cuda, "empty_cache", lambda: emptied.append(None))
    gpu, machine = cuda.model, cuda.machine
    for _ in range(3):
        assert captions(gpu) == cuda.captions
    assert machine.replays > 6
    assert emptied == []


@pytest.mark.parametrize("bytes_left", [0, 20_000])
def test_memory_that_runs_out_while_capturing_ends_no_graphs(
    bytes_left: int, cuda: OnCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu, machine = cuda.model, cuda.machine
    capacity = machine.capacity
    assert captions(gpu) == cuda.captions
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
        assert captions(gpu) == cuda.captions
    assert machine.replays == 0
    assert machine.captures == []
    assert captions(gpu) == cuda.captions
    assert machine.replays >= 4
    assert gpu.model.trouble is None


def test_graphs_are_captured_again_after_memory_was_given_back(cuda: OnCuda) -> None:
    gpu, machine = cuda.model, cuda.machine
    for _ in range(2):
        captions(gpu)
    gpu.model.free()
    replays = machine.replays
    for _ in range(2):
        assert captions(gpu) == cuda.captions
    assert machine.replays > replays + 3
    assert gpu.model.trouble is None


def test_layers_of_bitsandbytes_are_never_captured(
    cuda: OnCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = cuda.model.model.model
    assert graph_cache(model).failure is None
    block = model.language_model.model.decoder.layers[0]  # type: ignore[union-attr]
    quantizer = Quantizer("bitsandbytes", lambda layer: nn.Identity())
    theirs = LibraryLinear(block.fc1, nn.Identity(), quantizer)
    monkeypatch.setitem(block._modules, "fc1", theirs)
    assert graph_cache(model).failure == "layers of bitsandbytes cannot be captured"


def test_a_failed_capture_leaves_stream_and_allocator_as_they_were(
    cuda: OnCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    forward: Callable[..., Tensor] = Linear.forward

    def waiting(layer: Linear, states: Tensor, residual: Tensor | None = None) -> Tensor:
        assert not (states.abs() > 1e9).any()  # as a library does that looks for outliers
        return forward(layer, states, residual)

    gpu, machine = cuda.model, cuda.machine
    before = torch.cuda.current_stream()
    with monkeypatch.context() as patch:
        patch.setattr(Linear, "forward", waiting)
        for _ in range(3):
            assert captions(gpu) == cuda.captions
    assert gpu.model.trouble is not None
    assert "operation not permitted when stream is capturing" in gpu.model.trouble
    assert machine.replays == 0
    assert torch.cuda.current_stream() == before
    assert machine.captures == []
    torch.cuda.empty_cache()  # which would die otherwise
