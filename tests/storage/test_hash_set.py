from __future__ import annotations

import tracemalloc

from blip2cli.storage.hash_set import HashSet, occurrence_key


def test_it_contains_what_was_added() -> None:
    names = HashSet()
    assert names.add("a.png")
    assert names.add("caf\udce9.png")
    assert names.add("")
    assert not names.add("a.png")
    assert not names.add("caf\udce9.png")
    assert not names.add("")
    assert "a.png" in names
    assert "b.png" not in names
    assert len(names) == 3
    assert len(HashSet(["x", "y", "x"])) == 2


def test_grows_and_forgets_nothing_in_little_memory() -> None:
    tracemalloc.start()
    try:
        names = HashSet()
        assert all(names.add(f"folder/{n}.png") for n in range(200_000))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 64 * 200_000
    assert not any(names.add(f"folder/{n}.png") for n in range(200_000))
    assert len(names) == 200_000


class Tied(str):
    """A name that shares the first 64 bits of its hash with another one."""

    def __hash__(self) -> int:
        return int(self) // 2


def test_names_that_share_64_bits_are_told_apart() -> None:
    names = HashSet()
    assert all(names.add(Tied(n)) for n in range(0, 200_000, 3))
    for n in range(200_000):
        assert (Tied(n) in names) == (n % 3 == 0)
    assert all(names.add(Tied(n)) == (n % 3 != 0) for n in range(200_000))
    assert len(names) == 200_000


def test_names_that_come_together_are_as_those_that_come_one_by_one() -> None:
    blocks = [[f"{n}" for n in range(start, start + 1000)] for start in (0, 1000, 500)]
    together, single = HashSet(["7"]), HashSet(["7"])
    for block in blocks:
        together.add_occurrences(block)
        for name in block:
            single.add_next(name)
    assert len(together) == len(single) == 3001
    for name in ("0", "7", "1999", "2000"):
        for number in range(3):
            key = occurrence_key(name, number)
            assert (key in together) == (key in single)
    assert occurrence_key("7", 1) in together
    assert occurrence_key("600", 1) in together


def test_a_name_that_comes_again_among_those_that_come_together_is_the_next() -> None:
    names = HashSet()
    names.add_occurrences(["x", "y", "x", "x"])
    assert len(names) == 4
    assert occurrence_key("x", 2) in names
    assert occurrence_key("x", 3) not in names
    assert occurrence_key("y", 1) not in names
