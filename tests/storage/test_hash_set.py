from __future__ import annotations

import tracemalloc

from blip2cli.storage.hash_set import HashSet, name_of, occurrence_key


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
        assert all(names.add(f"folder/{n}.png") for n in range(120_000))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 64 * 120_000
    assert not any(names.add(f"folder/{n}.png") for n in range(120_000))
    assert len(names) == 120_000


class Tied(str):
    """A name that shares the first 64 bits of its hash with another one."""

    def __hash__(self) -> int:
        return int(self) // 2


def test_names_that_share_64_bits_are_told_apart() -> None:
    names = HashSet()
    assert all(names.add(Tied(n)) for n in range(0, 120_000, 3))
    for n in range(120_000):
        assert (Tied(n) in names) == (n % 3 == 0)
    assert all(names.add(Tied(n)) == (n % 3 != 0) for n in range(120_000))
    assert len(names) == 120_000


def test_tied_names_that_come_together_are_told_apart() -> None:
    names, some = HashSet(), [Tied(n) for n in range(0, 120_000, 3)]
    names.add_all(some)
    assert [*map(names.add, some[:10]), names.add(Tied(1))] == [False] * 10 + [True]
    names.add_all([Tied(n) for n in range(40_000)] * 2)
    found = names.contains([Tied(n) for n in range(120_000)])
    assert found == [n % 3 == 0 or n < 40_000 for n in range(120_000)]
    assert len(names) == sum(found)


def test_names_that_come_together_are_as_those_that_come_one_by_one() -> None:
    names = HashSet(["7"])
    for start, stop in ((0, 40_000), (40_000, 80_000), (20_000, 60_000), (79_000, 79_100)):
        names.add_all([f"{n}" for n in range(start, stop)])
        assert len(names) == (80_000 if start else 40_000)
    assert all(f"{n}" in names for n in range(80_000))
    assert names.contains([f"{n}" for n in range(79_990, 80_010)]) == [True] * 10 + [False] * 10
    names.add_all(["x", "y", "x"] * 20_000)
    assert len(names) == 80_002
    assert "80000" not in names


def test_occurrences_of_a_name_are_numbered() -> None:
    names = HashSet()
    assert [names.add_next(name) for name in ("x", "y", "x", "x", "x", "y")] == [1, 1, 2, 3, 4, 2]
    assert len(names) == 6
    assert "x" in names
    assert occurrence_key("x", 4) in names
    assert occurrence_key("x", 5) not in names
    assert [name_of(occurrence_key("x", number)) for number in (None, 1, 2)] == ["x"] * 3
