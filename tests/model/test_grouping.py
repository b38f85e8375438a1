from __future__ import annotations

from blip2cli.model.grouping import grouped


def test_positions_of_equal_keys_come_together_in_chunks() -> None:
    keys = [3, 1, 3, 3, 1]
    assert list(grouped(keys)) == [(3, [0, 2, 3]), (1, [1, 4])]
    assert list(grouped(keys, 2)) == [(3, [0, 2]), (3, [3]), (1, [1, 4])]
    assert list(grouped(keys, lambda key: key)) == [(3, [0, 2, 3]), (1, [1]), (1, [4])]
    assert list(grouped([])) == []
