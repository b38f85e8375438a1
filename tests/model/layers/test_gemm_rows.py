"""Row counts of matrix products on AMX."""

from __future__ import annotations

import pytest
import torch

from blip2cli.model.layers.gemm_rows import LARGE_MODEL_BYTES, fewer_rows, gemm_rows_for

NAMES = ("language_model.lm_head", "vision_model.encoder.layers.0.mlp.fc1")


@pytest.mark.parametrize("total", [LARGE_MODEL_BYTES - 1, LARGE_MODEL_BYTES])
@pytest.mark.parametrize("name", NAMES)
def test_a_product_takes_whole_sequences_within_its_rows(
    name: str, total: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    gemm = gemm_rows_for(torch.bfloat16, name, total)
    assert gemm is not None
    most = max(rows for _, rows in gemm.rows)
    assert gemm.sequences(1) == (64 if total < LARGE_MODEL_BYTES else 32)
    for length in range(1, 3000):
        assert 1 <= gemm.sequences(length) <= max(1, most // length)
    assert gemm.sequences(most + 1) == 1


def test_other_processors_and_precisions_have_no_fixed_row_count(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert gemm_rows_for(torch.float32, NAMES[0], LARGE_MODEL_BYTES) is None
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert gemm_rows_for(torch.bfloat16, NAMES[0], LARGE_MODEL_BYTES) is None


@pytest.mark.parametrize("many", [32, 64, 256, 1088, 2056])
@pytest.mark.parametrize("least", [8, 16, 264, 512])
def test_fewer_rows_are_tried_from_the_fewest_on(least: int, many: int) -> None:
    tried = fewer_rows(least, many)
    assert tried[0] == least
    assert tried == sorted(set(tried))
    assert all(few % 8 == 0 for few in tried)
    assert all(few <= many // 2 for few in tried[1:])
