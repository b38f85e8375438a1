"""The engine on a pretended CUDA device: rows are the CPU's, and the host waits seldom."""

from __future__ import annotations

import gc
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
import torch
from torch import Tensor

from blip2cli.api import Blip2
from blip2cli.model.layers.linear import Linear
from blip2cli.options import Dtype
from tests.model.device_tasks import IMAGES, TASKS, Tasks, differing
from tests.pretend import Machine, Wait, pretended, what_is_missing

MISSING = what_is_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


def load(name: str, device: str, dtype: Dtype = "float32") -> Blip2:
    return Blip2.load(name, device=device, dtype=dtype, batch_size=8)


@pytest.fixture(scope="module")
def cpu() -> Blip2:
    return load("tiny", "cpu")


@pytest.fixture(scope="module")
def expected(cpu: Blip2) -> list[str]:
    return captions(cpu)


@pytest.fixture(scope="module")
def shared(expected: object) -> Iterator[tuple[Machine, Blip2]]:
    """A machine with a model that several tests use."""
    with pretended() as machine:
        yield machine, load("tiny", "cuda")


def captions(model: Blip2) -> list[str]:
    return [row["caption"] for row in model.caption(IMAGES, max_new_tokens=8)]


def check(tasks: Tasks, cpu: Blip2, gpu: Blip2, machine: Machine) -> None:
    """Run tasks on both and compare; nothing goes wrong on the way, and steps are replayed."""
    assert differing(tasks, cpu, gpu) == {}
    assert gpu.model.trouble is None
    assert machine.errors == []
    assert machine.replays > 8 or not gpu.model.writes


def test_texts_are_those_of_the_cpu(cpu: Blip2, shared: tuple[Machine, Blip2]) -> None:
    machine, gpu = shared
    some = ("captions", "drawn", "rules", "beams by rules", "answers", "choices by pmi")
    check({name: TASKS["tiny"][name] for name in some}, cpu, gpu, machine)


def test_t5_writes_what_it_writes_on_the_cpu() -> None:
    tasks = {name: TASKS["tiny-t5"][name] for name in ("behind a prompt", "beams")}
    cpu = load("tiny-t5", "cpu")
    with pretended() as machine:
        check(tasks, cpu, load("tiny-t5", "cuda"), machine)


@pytest.mark.external
@pytest.mark.parametrize("name", TASKS)
def test_rows_are_those_of_the_cpu(name: str) -> None:
    cpu = load(name, "cpu")
    with pretended() as machine:
        check(TASKS[name], cpu, load(name, "cuda"), machine)


@pytest.mark.external
@pytest.mark.parametrize("name", TASKS)
def test_nothing_goes_wrong_in_bfloat16(name: str) -> None:
    with pretended() as machine:
        gpu = load(name, "auto", "auto")
        assert gpu.model.dtype is torch.bfloat16
        for task in TASKS[name].values():
            task(gpu)
        assert gpu.model.trouble is None
        assert machine.errors == []


@dataclass
class Counts:
    """Steps, and how many waits there were before each refill."""

    steps: int = 0
    refills: list[int] = field(default_factory=list)


class Watched:
    """A decoder session, or its slots, whose steps and refills are counted."""

    def __init__(self, inner: Any, machine: Machine, counts: Counts) -> None:
        self.inner, self.machine, self.counts = inner, machine, counts

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)

    def open_slots(self, *arguments: Any) -> Watched:
        return Watched(self.inner.open_slots(*arguments), self.machine, self.counts)

    def decode_step(self, *arguments: Any) -> Any:
        self.counts.steps += 1
        return self.inner.decode_step(*arguments)

    def prefill(self, *arguments: Any) -> Any:
        self.counts.refills.append(len(self.machine.waits))
        return self.inner.prefill(*arguments)


# By the way to choose tokens: options, waits a step on average, waits of the refill with the most.
WAITS: dict[str, tuple[dict[str, Any], float, int]] = {
    "greedy": ({}, 0, 0),
    "drawn": ({"temperature": 1.2}, 0, 0),
    "ruled": ({"repetition_penalty": 1.3, "min_new_tokens": 2}, 0, 0),
    "beams": ({"num_beams": 3}, 0, 0),
}


@pytest.mark.parametrize("name", WAITS)
def test_steps_and_refills_hardly_wait(
    shared: tuple[Machine, Blip2], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (machine, gpu), counts = shared, Counts()
    options, a_step, a_refill = WAITS[name]
    gpu.caption(IMAGES, **options)
    session = gpu.model._session
    monkeypatch.setattr(
        gpu.model, "_session", lambda features: Watched(session(features), machine, counts)
    )
    before = len(machine.waits)
    gpu.caption(IMAGES, **options)
    waits = machine.waits[before:]
    writing = [wait for wait in waits if "generate" in wait.within]
    in_steps = [each for each in writing if not {"_refill", "_shrink"} & each.within]
    assert len(in_steps) <= a_step * counts.steps, lines(in_steps)
    ends = [*counts.refills[1:], len(machine.waits)]
    for start, end in zip(counts.refills, ends, strict=True):
        in_refill = [each for each in machine.waits[start:end] if "_refill" in each.within]
        assert len(in_refill) <= a_refill, lines(in_refill)
    assert counts.steps > len(counts.refills) > 0


def lines(waits: list[Wait]) -> list[str]:
    return [f"{wait.what}: {wait.line}" for wait in waits]


@pytest.mark.external
def test_a_second_gpu_does_all_of_it(expected: list[str]) -> None:
    with pretended(devices=2) as machine:
        gpu = load("tiny", "cuda:1")
        for _ in range(2):
            assert captions(gpu) == expected
        assert machine.replays > 5
        assert set(machine.defaults) == {1}  # no other device was used
        assert torch.cuda.current_device() == 0
        assert gpu.model.trouble is None
        assert machine.errors == []


def test_steps_that_cannot_be_captured_run_without(
    expected: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    forward: Callable[..., Tensor] = Linear.forward

    def waiting(layer: Linear, states: Tensor, residual: Tensor | None = None) -> Tensor:
        if (states.abs() > 1e9).any():  # as a library does that looks for outliers
            raise AssertionError
        return forward(layer, states, residual)

    monkeypatch.setattr(Linear, "forward", waiting)
    with pretended() as machine:
        gpu, stream = load("tiny", "cuda"), torch.cuda.current_stream()
        for _ in range(2):
            assert captions(gpu) == expected
        assert machine.replays == 0
        assert torch.cuda.current_stream() == stream
        torch.cuda.empty_cache()  # refused while a capture is under way
        assert gpu.model.trouble is not None
        assert "without CUDA graphs" in gpu.model.trouble


@pytest.mark.external
def test_memory_is_given_back(shared: tuple[Machine, Blip2]) -> None:
    machine, gpu = shared
    held = []
    for _ in range(3):
        captions(gpu)
        gpu.model.free()
        gc.collect()
        held.append(machine.allocated)
    assert held[2] <= held[0]
