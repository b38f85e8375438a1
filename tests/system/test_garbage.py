"""Tests of the pause of the collector of cycles."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Iterator

import pytest

from blip2cli.system.garbage import collect_from_now_on, collection_off


@pytest.fixture(autouse=True)
def thaw() -> Iterator[None]:
    yield
    gc.unfreeze()
    gc.freeze()  # what was imported, see tests/conftest.py


class Node:
    """Refers to itself, so that only the collector can free it."""

    def __init__(self) -> None:
        self.itself = self


def enough_objects_for_a_collection() -> list[list[int]]:
    return [[] for _ in range(10 * gc.get_threshold()[0])]


def test_no_cycle_is_collected_inside_and_all_are_behind() -> None:
    with collection_off():
        node = weakref.ref(Node())
        _many = enough_objects_for_a_collection()
        assert node() is not None
    assert gc.isenabled()
    gc.collect()
    assert node() is None


def test_new_cycles_are_collected_while_the_objects_there_were_are_left_alone() -> None:
    with collection_off():
        before = weakref.ref(Node())
        collect_from_now_on()
        behind = weakref.ref(Node())
        _many = enough_objects_for_a_collection()
        assert behind() is None
        gc.collect()
        assert before() is not None
    gc.unfreeze()
    gc.collect()
    assert before() is None


def test_an_error_inside_does_not_leave_it_off() -> None:
    with pytest.raises(ValueError, match="no"), collection_off():
        raise ValueError("no")
    assert gc.isenabled()


def test_outside_nothing_is_frozen_or_switched() -> None:
    gc.disable()
    try:
        frozen = gc.get_freeze_count()
        collect_from_now_on()
        assert not gc.isenabled()
        assert gc.get_freeze_count() <= frozen  # what was frozen may have gone
    finally:
        gc.enable()
