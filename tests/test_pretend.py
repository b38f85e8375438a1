"""The pretended CUDA device itself: what it computes, refuses and notices."""

from __future__ import annotations

import gc
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from torch import Tensor

from tests.pretend import Machine, Refused, pretended, what_is_missing

MISSING = what_is_missing()
pytestmark = pytest.mark.skipif(MISSING is not None, reason=str(MISSING))


@pytest.fixture
def machine() -> Iterator[Machine]:
    with pretended(devices=2) as machine:
        yield machine


def numbers(*shape: int, device: str = "cuda") -> Tensor:
    return torch.arange(torch.Size(shape).numel(), dtype=torch.float32, device=device).view(shape)


def test_it_computes_what_the_cpu_computes(machine: Machine) -> None:
    def work(device: str) -> Tensor:
        rows = numbers(4, 6, device=device)
        rows[1] = 3
        rows[:, ::2] += rows[:, 1::2].softmax(-1)
        return torch.nn.functional.linear(rows, numbers(5, 6, device=device)).topk(2).values

    there = work("cuda")
    assert there.device == torch.device("cuda:0")
    assert there.is_cuda
    assert torch.equal(there.cpu(), work("cpu"))
    assert machine.errors == []
    assert machine.kernels["mm"] + machine.kernels["addmm"] == 1


def test_operands_lie_on_one_device(machine: Machine) -> None:
    one = numbers(3)
    for other in (numbers(3, device="cuda:1"), numbers(3, device="cpu")):
        with pytest.raises(Refused, match="at least two devices"):
            one + other
        with pytest.raises(Refused, match="at least two devices"):
            torch.cat((one, other))
    assert (one + torch.tensor(2.0)).tolist() == [2, 3, 4]
    with pytest.raises(TypeError):
        one.numpy()


def test_a_context_makes_a_device_the_current_one(machine: Machine) -> None:
    with torch.cuda.device(1):
        assert torch.zeros(2, device="cuda").device.index == 1
        assert torch.cuda.current_stream().device.index == 1
    assert torch.zeros(2, device="cuda").device.index == 0


WAITING: dict[str, Callable[[Tensor], object]] = {
    "item": lambda rows: rows[0].item(),
    "as a condition": lambda rows: bool(rows[0] > 1),
    "tolist": lambda rows: rows.tolist(),
    "to the host": lambda rows: rows.cpu(),
    "a tensor of a list": lambda rows: torch.tensor([1, 2], device="cuda"),
    "equal": lambda rows: torch.equal(rows, rows),
    "a mask as index": lambda rows: rows[rows > 1],
    "where it is true": lambda rows: rows.nonzero(),
    "indices of the host": lambda rows: rows[torch.tensor([0, 2])],
    "a list of indices": lambda rows: rows[[0, 2]],
    "repeats of the device": lambda rows: rows.repeat_interleave(rows.long()),
}
NOT_WAITING: dict[str, Callable[[Tensor], object]] = {
    "arithmetic": lambda rows: (rows + 1).mul_(2).sum(),
    "filled": lambda rows: rows.masked_fill_(rows > 1, 0),
    "slices": lambda rows: rows[1:].clone(),
    "indices of the device": lambda rows: rows[torch.arange(2, device="cuda")],
    "from pinned memory": lambda rows: torch.zeros(3, pin_memory=True).to(
        "cuda", non_blocking=True
    ),
    "to pinned memory": lambda rows: rows.to("cpu", non_blocking=True),
    "known repeats": lambda rows: rows.repeat_interleave(rows.long(), output_size=3),
}


@pytest.mark.parametrize("name", WAITING)
def test_waits_are_noted(machine: Machine, name: str) -> None:
    rows = numbers(3)
    WAITING[name](rows)
    assert len(machine.waits) == 1, machine.waits


@pytest.mark.parametrize("name", NOT_WAITING)
def test_what_does_not_wait_is_not_noted(machine: Machine, name: str) -> None:
    rows = numbers(3)
    NOT_WAITING[name](rows)
    assert machine.waits == []
    assert machine.errors == []


def test_streams_wait_for_one_another(machine: Machine) -> None:
    stream, rows = torch.cuda.Stream(), numbers(3)
    with torch.cuda.stream(stream):
        rows + 1
    assert len(machine.errors) == 1
    machine.errors.clear()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        rows += 1
    assert machine.errors == []
    rows.sum()
    assert len(machine.errors) == 1
    machine.errors.clear()
    torch.cuda.current_stream().wait_event(stream.record_event())
    rows.sum()
    assert machine.errors == []


def test_pinned_memory_that_is_being_copied_is_left_as_it_is(machine: Machine) -> None:
    buffer = torch.zeros(3, pin_memory=True)
    assert buffer.is_pinned()
    assert torch.zeros(3).pin_memory().is_pinned()
    assert not torch.zeros(3).is_pinned()
    sent = buffer.to("cuda", non_blocking=True)
    copied = torch.cuda.current_stream().record_event()
    buffer.fill_(1)
    assert len(machine.errors) == 1
    machine.errors.clear()
    assert not copied.query()
    copied.synchronize()
    assert copied.query()
    buffer.fill_(2)
    assert machine.errors == []
    assert sent.tolist() == [0, 0, 0]


@pytest.mark.parametrize("given", [False, True])
def test_a_copy_to_the_host_arrives_when_it_was_waited_for(machine: Machine, given: bool) -> None:
    rows = numbers(3)
    if given:
        there = torch.zeros(3, pin_memory=True)
        there.copy_(rows, non_blocking=True)
    else:
        there = rows.to("cpu", non_blocking=True)
    assert there.tolist() != [0, 1, 2]
    torch.cuda.current_stream().record_event().synchronize()
    assert there.tolist() == [0, 1, 2]
    assert machine.waits == []


def test_memory_is_freed_when_no_stream_uses_it(machine: Machine) -> None:
    def use(record: bool) -> None:
        with torch.cuda.stream(stream):
            rows = numbers(3)
        torch.cuda.current_stream().wait_stream(stream)
        rows.sum()
        if record:
            rows.record_stream(torch.cuda.current_stream())

    stream = torch.cuda.Stream()
    use(record=True)
    gc.collect()
    assert machine.errors == []
    use(record=False)
    gc.collect()
    assert len(machine.errors) == 1


class Recorded:
    """A graph of ``total += rows``."""

    def __init__(self, work: Callable[[], object] | None = None) -> None:
        self.rows, self.total = numbers(3), torch.zeros(3, device="cuda")
        torch.cuda.synchronize()
        self.graph, self.stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
        with torch.cuda.graph(self.graph, stream=self.stream):
            self.total.add_(self.rows * 2)
            if work is not None:
                work()


def test_graphs_run_when_they_are_replayed(machine: Machine) -> None:
    recorded = Recorded()
    assert recorded.total.tolist() == [0, 0, 0]
    recorded.graph.replay()
    recorded.rows.fill_(1)
    recorded.graph.replay()
    assert recorded.total.tolist() == [2, 4, 6]
    assert (machine.replays, machine.errors) == (2, [])
    assert machine.replayed == {"mul": 2, "add_": 2}
    del recorded.rows
    gc.collect()
    recorded.graph.replay()
    assert machine.errors[0].startswith("a graph is replayed whose memory was freed")


def test_what_waits_cannot_be_captured(machine: Machine) -> None:
    before = torch.cuda.current_stream()
    with pytest.raises(Refused, match="operation failed due to a previous error"):
        Recorded(lambda: numbers(3).sum().item())
    # As torch leaves it.
    assert torch.cuda.current_stream() != before
    with pytest.raises(Refused, match="captures_underway"):
        torch.cuda.empty_cache()


def test_memory_runs_out(machine: Machine) -> None:
    rows = numbers(1000)
    assert machine.allocated == 4000
    machine.capacity = 9000
    assert torch.cuda.mem_get_info() == (5000, 9000)
    doubled = rows * 2
    with pytest.raises(torch.OutOfMemoryError):
        rows + doubled
    del doubled
    assert (rows * 2).shape == (1000,)
    del rows
    gc.collect()
    assert machine.allocated == 0
    assert machine.peak == 8000


def test_threads_see_the_device(machine: Machine) -> None:
    found = []
    thread = threading.Thread(target=lambda: found.append(numbers(3, device="cuda:1")))
    thread.start()
    thread.join()
    with ThreadPoolExecutor(1) as pool:
        found.append(pool.submit(lambda: torch.zeros(3).to("cuda", torch.float16)).result())
    assert [each.device.index for each in found] == [1, 0]
    assert found[0].tolist() == [0, 1, 2]


def test_it_refuses_products_in_eight_bits_as_the_libraries_of_cuda_do(machine: Machine) -> None:
    weight = torch.ones(16, 8, dtype=torch.int8, device="cuda")
    product = torch._int_mm(torch.ones(17, 16, dtype=torch.int8, device="cuda"), weight)
    assert product.unique().tolist() == [16]
    with pytest.raises(Refused, match="greater than 16"):
        torch._int_mm(torch.ones(16, 16, dtype=torch.int8, device="cuda"), weight)
    with pytest.raises(Refused, match="multiples of 8"):
        torch._int_mm(torch.ones(17, 16, dtype=torch.int8, device="cuda"), weight[:, :7])


def test_nothing_is_left_of_it() -> None:
    with pretended() as machine:
        rows = numbers(3)
        assert machine.allocated
    assert not torch.cuda.is_available()
    with pytest.raises(AssertionError, match="is gone"):
        rows + 1
