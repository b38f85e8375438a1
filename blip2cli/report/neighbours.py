"""The nearest neighbours of embeddings, by the cosine."""

from __future__ import annotations

from typing import Any

import numpy as np

from blip2cli.convert.column_types import EMBEDDING
from blip2cli.errors import SourceError
from blip2cli.evaluate.key_index import Numbers
from blip2cli.evaluate.read_rows import Table
from blip2cli.evaluate.recall import unit_vectors

NEIGHBOURS = 10
MOST_ROWS = 20_000  # rows whose neighbours are found: two seconds at 256 numbers, on two cores
_PAIRS = 1 << 24  # 64 MB of similarities


def neighbours_of(table: Table, count: int) -> list[list[list[Any]] | None]:
    """For each of the first ``count`` rows: the nearest others, ``[row, cosine]``, nearest first.

    None for a row without a vector. Raises SourceError.
    """
    vectors: list[Numbers] = []
    rows: list[Numbers] = []
    start = 0
    for batch in table.arrow_batches():
        batch = batch.slice(0, count - start)
        valid = batch.column(EMBEDDING).is_valid()
        sound = batch.filter(valid)
        if sound.num_rows:
            rows.append(start + np.flatnonzero(valid.to_numpy(zero_copy_only=False)))
            vectors.append(np.nan_to_num(unit_vectors(sound)))
        start += batch.num_rows
        if start >= count:
            break
    found: list[list[list[Any]] | None] = [None] * count
    if len({one.shape[1] for one in vectors}) > 1:
        raise SourceError(
            table.field, f"{str(table)!r} holds vectors of several sizes", "compare one kind"
        )
    if rows:
        row = np.concatenate(rows)
        near, cosines = nearest(np.concatenate(vectors))
        for number, others, values in zip(
            row.tolist(), row[near].tolist(), cosines.round(4).tolist(), strict=True
        ):
            found[number] = [list(pair) for pair in zip(others, values, strict=True)]
    return found


def nearest(
    vectors: Numbers, most: int = NEIGHBOURS, pairs: int = _PAIRS
) -> tuple[Numbers, Numbers]:
    """Positions and cosines of the nearest others, ``[n, k]``, nearest first.

    ``vectors`` are of length 1, float32 ``[n, size]``; k is ``most``, or n - 1 if that is less.
    ``pairs``: similarities that are computed at once.
    """
    size = len(vectors)
    most = max(0, min(most, size - 1))
    near, cosines = np.zeros((size, most), np.int64), np.zeros((size, most), np.float32)
    if not most:
        return near, cosines
    step = max(1, pairs // size)
    for start in range(0, size, step):
        block = vectors[start : start + step] @ vectors.T
        own = np.arange(len(block))
        block[own, start + own] = -np.inf
        some = np.sort(np.argpartition(block, -most, axis=1)[:, -most:], axis=1)
        values = np.take_along_axis(block, some, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        near[start : start + step] = np.take_along_axis(some, order, axis=1)
        cosines[start : start + step] = np.take_along_axis(values, order, axis=1)
    return near, cosines
