"""How many rows a product has, where their number decides about bits."""

from __future__ import annotations

import pytest
import torch

from blip2cli.model.layers.gemm_rows import LARGE_MODEL, fewer_rows, gemm_rows_for

NAMES = ("language_model.lm_head", "vision_model.encoder.layers.0.mlp.fc1")


@pytest.mark.parametrize("total", [LARGE_MODEL - 1, LARGE_MODEL])
@pytest.mark.parametrize("name", NAMES)
def test_whole_sequences_and_about_so_many_rows(
    name: str, total: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    calls = gemm_rows_for(torch.bfloat16, name, total)
    assert calls is not None
    most = max(rows for _, rows in calls.rows)
    assert calls.sequences(1) == (64 if total < LARGE_MODEL else 32)
    for length in range(1, 3000):
        assert 1 <= calls.sequences(length) <= max(1, most // length)
    assert calls.sequences(most + 1) == 1


def test_elsewhere_any_number_will_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: True)
    assert gemm_rows_for(torch.float32, NAMES[0], LARGE_MODEL) is None
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert gemm_rows_for(torch.bfloat16, NAMES[0], LARGE_MODEL) is None


@pytest.mark.parametrize("many", [32, 64, 256, 1088, 2056])
@pytest.mark.parametrize("least", [8, 16, 264, 512])
def test_fewer_rows_are_tried_from_the_fewest_on(least: int, many: int) -> None:
    tried = fewer_rows(least, many)
    assert tried[0] == least
    assert tried == sorted(set(tried))
    assert all(few % 8 == 0 for few in tried)
    assert all(few <= many // 2 for few in tried[1:])
