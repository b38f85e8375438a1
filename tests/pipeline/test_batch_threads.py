from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pytest
import torch

from blip2cli.pipeline.batch_threads import Lanes


def drained(lanes: Lanes[int, int]) -> list[int]:
    found = []
    while lanes.pending:
        found.append(lanes.take())
    return found


@pytest.mark.parametrize("count", [1, 2, 4])
def test_results_come_in_the_order_of_the_batches(count: int) -> None:
    def work(number: int) -> int:
        time.sleep(0.02 if number % 3 == 0 else 0.0)
        return number * number

    found = []
    with Lanes(work, count) as lanes:
        for number in range(20):
            lanes.put(number)
            while lanes.full:
                found.append(lanes.take())
        found += drained(lanes)
    assert found == [number * number for number in range(20)]


def test_one_lane_is_the_callers_own_thread() -> None:
    with Lanes(lambda number: threading.get_ident(), 1) as lanes:
        lanes.put(0)
        assert lanes.full
        assert lanes.take() == threading.get_ident()


def test_several_work_at_once_each_with_one_thread() -> None:
    meeting = threading.Barrier(2, timeout=30)
    before = torch.get_num_threads()

    def work(number: int) -> int:
        meeting.wait()  # would time out if one came after the other
        return torch.get_num_threads()

    with Lanes(work, 2) as lanes:
        for number in range(4):
            lanes.put(number)
        assert lanes.full
        assert drained(lanes) == [1, 1, 1, 1]
    assert torch.get_num_threads() == before


@pytest.mark.parametrize("count", [1, 2])
def test_an_exception_comes_in_its_turn(count: int) -> None:
    def work(number: int) -> int:
        if number == 1:
            raise ValueError("the second")
        return number

    with Lanes(work, count) as lanes:
        for number in range(3):
            lanes.put(number)
        assert lanes.take() == 0
        with pytest.raises(ValueError, match="the second"):
            lanes.take()
        assert lanes.take() == 2


def test_leaving_waits_for_what_is_under_way_and_begins_nothing_more() -> None:
    begun: list[int] = []
    done: list[int] = []

    def work(number: int) -> None:
        begun.append(number)
        time.sleep(0.1)
        done.append(number)

    with Lanes(work, 2) as lanes:
        for number in range(6):
            lanes.put(number)
        time.sleep(0.02)
    assert sorted(begun) == sorted(done)
    assert len(done) < 6


def test_one_batch_more_than_there_are_threads_waits_for_the_first_that_is_free() -> None:
    gates = [threading.Event() for _ in range(3)]
    begun: list[int] = []

    def work(number: int) -> int:
        begun.append(number)
        assert gates[number].wait(30)
        return number

    with Lanes(work, 2) as lanes:
        for number in range(3):
            assert not lanes.full
            lanes.put(number)
        assert lanes.full
        gates[1].set()  # the second is done before the first, and nobody takes anything
        assert until(lambda: begun[2:] == [2])
        assert not lanes.ready
        gates[0].set()
        assert until(lambda: lanes.ready)
        assert (lanes.take(), lanes.take()) == (0, 1)
        assert not lanes.ready
        gates[2].set()
        assert lanes.take() == 2
        assert not lanes.ready


def until(condition: Callable[[], bool]) -> bool:
    deadline = time.monotonic() + 20
    while not condition() and time.monotonic() < deadline:
        time.sleep(0.002)
    return condition()
