"""Nearest neighbours, compared with a plain loop."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from blip2cli.evaluate.read_rows import Table
from blip2cli.report.neighbours import nearest, neighbours_of


def test_neighbours_are_those_of_a_plain_search() -> None:
    vectors = np.random.default_rng(1).normal(size=(50, 8)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    near, cosines = nearest(vectors, pairs=350)  # blocks of seven rows
    for row in range(50):
        others = sorted(
            (n for n in range(50) if n != row), key=lambda n: -vectors[row] @ vectors[n]
        )
        assert near[row].tolist() == others[:10]
        assert cosines[row] == pytest.approx(vectors[others[:10]] @ vectors[row], abs=1e-6)


def test_equal_vectors_come_in_order_and_few_have_few() -> None:
    vectors = np.tile(np.float32([1, 0]), (4, 1))
    assert nearest(vectors)[0].tolist() == [[1, 2, 3], [0, 2, 3], [0, 1, 3], [0, 1, 2]]
    assert nearest(vectors[:1])[0].shape == (1, 0)
    assert nearest(vectors[:0])[0].shape == (0, 0)


def test_rows_without_a_vector_are_nobodys_neighbour(tmp_path: Path) -> None:
    path = tmp_path / "v.parquet"
    vectors = pa.array([[1.0, 0.0], None, [0.0, 2.0], [3.0, 3.0]], pa.list_(pa.float32(), 2))
    pq.write_table(pa.table({"file_name": list("abcd"), "embedding": vectors}), path)
    table = Table.of("rows", [str(path)])
    found = neighbours_of(table, 4)
    cosines = [[pair[1] for pair in near] for near in found if near]
    assert cosines == [
        [pytest.approx(one, abs=1e-3) for one in line]
        for line in ((0.7071, 0), (0.7071, 0), (0.7071, 0.7071))
    ]
    assert [near and [pair[0] for pair in near] for near in found] == [
        [3, 2], None, [3, 0], [0, 2],
    ]  # fmt: skip
    assert neighbours_of(table, 3)[0] == [[2, 0.0]]
