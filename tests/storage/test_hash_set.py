from __future__ import annotations

import tracemalloc

from blip2cli.storage.hash_set import HashSet


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
        assert all(names.add(f"folder/{n}.png") for n in range(50_000))
        size, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert size < 64 * 50_000
    assert not any(names.add(f"folder/{n}.png") for n in range(50_000))
    assert len(names) == 50_000
