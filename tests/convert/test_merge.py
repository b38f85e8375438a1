"""Rows of shares in the order of the source, also of a share that has to be sorted first."""

from __future__ import annotations

import random
from pathlib import Path

import pyarrow as pa
import pytest

from blip2cli.convert.merge import _merged, _names, _sorted_runs, _Stream
from blip2cli.sources.shard import name_order


@pytest.mark.parametrize("run_bytes", [1, 200, 1 << 20])
def test_a_share_out_of_order_is_merged_from_sorted_runs(tmp_path: Path, run_bytes: int) -> None:
    images = [*range(20)]
    random.Random(0).shuffle(images)
    rows = [{"file_name": f"{n}.png", "text": f"{k}"} for n in images for k in range(3)]
    batches = pa.Table.from_pylist(rows).to_batches(max_chunksize=7)
    runs = _sorted_runs(iter(batches), _names, str(tmp_path), run_bytes)
    assert (len(runs) == len(batches)) == (run_bytes == 1)
    assert (len(runs) == 1) == (run_bytes == 1 << 20)
    table = pa.concat_tables(_merged([_Stream("share", run, _names) for run in runs]))
    # Rows of one image keep their order.
    assert table.to_pylist() == sorted(rows, key=lambda row: name_order(row["file_name"]))
