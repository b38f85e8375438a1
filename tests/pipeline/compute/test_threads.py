from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch

from blip2cli.pipeline.compute.threads import BatchThreads
from blip2cli.pipeline.processed_batch import ProcessedBatch, process_batch
from blip2cli.pipeline.stats import RunStats


def drained(threads: BatchThreads[int, int]) -> list[int]:
    found = []
    while (result := threads.take(wait=True)) is not None:
        found.append(result)
    return found


@pytest.mark.parametrize("count", [1, 2, 4])
def test_results_come_in_the_order_of_the_batches(count: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0.0)
        return number * number

    found = []
    with BatchThreads(work, count) as threads:
        for number in range(20):
            threads.put(number)
            while (result := threads.take()) is not None:
                found.append(result)
        found += drained(threads)
    assert found == [number * number for number in range(20)]


def test_one_thread_is_the_callers_own_thread() -> None:
    with BatchThreads(lambda number: threading.get_ident(), 1) as threads:
        threads.put(0)
        assert threads.take() == threading.get_ident()


def test_several_work_at_once_each_with_one_thread() -> None:
    meeting = threading.Barrier(2, timeout=30)
    before = torch.get_num_threads()

    def work(number: int) -> int:
        meeting.wait()  # would time out if one came after the other
        return torch.get_num_threads()

    with BatchThreads(work, 2) as threads:
        for number in range(4):
            threads.put(number)
        assert drained(threads) == [1, 1, 1, 1]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("count", [1, 2])
def test_an_exception_comes_in_its_turn(count: int) -> None:
    def work(number: int) -> int:
        if number == 1:
            raise ValueError("the second")
        return number

    with BatchThreads(work, count) as threads:
        for number in range(3):
            threads.put(number)
        assert threads.take(wait=True) == 0
        with pytest.raises(ValueError, match="the second"):
            threads.take(wait=True)
        assert threads.take(wait=True) == 2


def test_leaving_waits_for_what_is_under_way_and_begins_nothing_more() -> None:
    started: list[int] = []
    done: list[int] = []

    def work(number: int) -> None:
        started.append(number)
        time.sleep(0.1)
        done.append(number)

    with BatchThreads(work, 2) as threads:
        for number in range(6):
            threads.put(number)
        time.sleep(0.02)
    assert sorted(started) == sorted(done)
    assert len(done) < 6


def test_one_batch_more_than_there_are_threads_waits_for_the_first_that_is_free() -> None:
    gates = [threading.Event() for _ in range(3)]
    started: list[int] = []

    def work(number: int) -> int:
        started.append(number)
        assert gates[number].wait(30)
        return number

    with BatchThreads(work, 2) as threads:
        for number in range(3):
            assert threads.take() is None
            threads.put(number)
        taken: list[int | None] = []
        taker = threading.Thread(target=lambda: taken.append(threads.take()))
        taker.start()
        gates[1].set()  # the second is done before the first
        assert until(lambda: started[2:] == [2])
        assert not taken
        gates[0].set()
        taker.join(30)
        assert taken == [0]
        assert threads.take() == 1
        assert threads.take() is None
        gates[2].set()
        assert threads.take(wait=True) == 2
        assert threads.take(wait=True) is None


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()


def test_the_time_of_loading_is_counted_apart_from_the_models() -> None:
    batch = object()

    def load() -> object:
        time.sleep(0.3)
        return batch

    def process(loaded: object) -> ProcessedBatch:
        assert loaded is batch
        assert list(running.values()) == [batch]
        time.sleep(0.1)
        return ProcessedBatch([{"caption": "slow"}], 1)

    running: dict[int, object] = {}
    processed = process_batch(process, running, load)
    assert running == {}
    assert processed.rows == [{"caption": "slow"}]
    assert processed.load_share == pytest.approx(0.75, abs=0.1)


def test_waiting_for_a_batch_counts_for_reading_as_far_as_it_was_loaded() -> None:
    stats = RunStats()
    stats.add(ProcessedBatch([], 1, load_share=0.25), 4.0, 0.5)
    stats.add(ProcessedBatch([], 1), 2.0, 1.0)
    assert stats.stages == {"read": 1.0, "model": 5.0, "write": 1.5}
