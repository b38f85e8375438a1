"""Keys and values of all layers in few tensors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from blip2cli.model.decoding import kv_cache
from blip2cli.model.decoding.kv_cache import KVCache
from blip2cli.model.decoding.slot_buffers import SlotBuffers

LAYERS, HEADS, SIZE = 7, 2, 4


def filled(rows: int, positions: int) -> tuple[KVCache, list[tuple[Tensor, Tensor]]]:
    """A cache, and what was appended to it."""
    size = (rows, HEADS, positions, SIZE)
    cache = KVCache([torch.device("cpu")] * LAYERS, size, torch.float32, layers_together=3)
    pairs = [(torch.randn(size), torch.randn(size)) for _ in range(LAYERS)]
    for pair in pairs:
        cache.append(pair)
    return cache, pairs


def test_layers_lie_together() -> None:
    cache, pairs = filled(5, 6)
    assert [piece.shape[1] for piece in cache.pieces] == [3, 3, 1]
    for layer, pair in enumerate(pairs):
        for mine, theirs in zip(cache[layer], pair, strict=True):
            assert torch.equal(mine, theirs)
            assert mine.is_contiguous()
    assert torch.equal(cache.pairs()[4], torch.stack(pairs[4], dim=1))


def test_on_a_cpu_each_layer_is_a_piece() -> None:
    size = (5, HEADS, 6, SIZE)
    for name, expected in (("cpu", [1] * 12), ("meta", [8, 4])):
        pieces = KVCache([torch.device(name)] * 12, size, torch.float32).pieces
        assert [piece.shape[1] for piece in pieces] == expected


def test_a_new_device_begins_a_new_piece() -> None:
    devices = [torch.device("cpu")] * 2 + [torch.device("meta")] * 4 + [torch.device("cpu")]
    cache = KVCache(devices, (5, HEADS, 6, SIZE), torch.bfloat16, layers_together=3)
    assert [piece.shape[1] for piece in cache.pieces] == [2, 3, 1, 1]
    assert [cache[layer][0].device for layer in range(LAYERS)] == devices


@pytest.mark.parametrize("large", [0, 1 << 20])
def test_rows_are_copied_and_reordered_in_every_layer(
    large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_cache, "LARGE_ROW", large)
    cache, before = filled(8, 9)
    images, pairs = filled(3, 4)
    cache.put(torch.tensor([6, 1]), images, torch.tensor([2, 0]), first=3)
    cache.reorder(torch.tensor([0, 1]), torch.tensor([1, 0]), slice(5, 8))
    for layer in range(LAYERS):
        for which in (0, 1):
            want = before[layer][which].clone()
            want[[6, 1], :, 3:7] = pairs[layer][which][[2, 0]]
            want[[0, 1], :, 5:8] = want[[1, 0], :, 5:8]
            assert torch.equal(cache[layer][which], want)


@pytest.mark.parametrize("large", [0, 1 << 20])
@pytest.mark.parametrize("order", [[0, 5, 2, 4], [1, 0, 3], [3, 4, 5], [0, 1]])
def test_slots_that_are_kept_come_first(
    order: list[int], large: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_cache, "LARGE_ROW", large)
    rows = torch.randn(6, 3)
    views = [rows.clone(), rows[:, 0].clone()]
    SlotBuffers(views).compact(order)
    assert torch.equal(views[0], rows[order])
    assert torch.equal(views[1], rows[order, 0])
