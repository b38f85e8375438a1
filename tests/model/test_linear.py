from __future__ import annotations

import platform

import pytest
import torch
from torch import nn

from blip2cli.model.rows import RowStableLinear, make_rows_stable


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
@pytest.mark.parametrize(("inside", "outside"), [(32, 128), (100, 333)])
def test_a_row_keeps_its_bits_at_every_row_count(threads: int, inside: int, outside: int) -> None:
    torch.manual_seed(inside)
    layer = nn.Sequential(nn.Linear(inside, outside))
    rows = torch.randn(45, inside)
    make_rows_stable(layer)
    whole = layer(rows)
    for count in range(1, 45):
        assert torch.equal(layer(rows[:count]), whole[:count]), count
        assert torch.equal(layer(rows[-count:]), whole[-count:]), count


@pytest.mark.parametrize("threads", [1, 2], indirect=True)
def test_rows_that_lie_apart_in_memory_keep_them_too(threads: int) -> None:
    # The last position of every prefix, as the language model's head gets it.
    torch.manual_seed(0)
    layer = nn.Sequential(nn.Linear(128, 320, bias=False)).requires_grad_(False)
    states = torch.randn(24, 17, 128)
    make_rows_stable(layer)
    whole = layer(states[:, -1:])
    for count in (1, 3, 8, 9, 16, 24):
        assert torch.equal(layer(states[:count, -1:]), whole[:count]), count
        assert torch.equal(layer(states[:count, -1:].contiguous()), whole[:count]), count


@pytest.mark.skipif(platform.machine() != "x86_64", reason="measured with MKL")
def test_plain_layers_do_not_keep_them() -> None:
    # What the row filling is for; should a torch release mend this, rows.py can go.
    torch.manual_seed(0)
    layer = nn.Linear(128, 128)
    rows = torch.randn(64, 128)
    whole = layer(rows)
    assert any(not torch.equal(layer(rows[:count]), whole[:count]) for count in range(1, 12))


def test_shapes_and_values_stay() -> None:
    torch.manual_seed(0)
    plain = nn.Linear(16, 8)
    batch = torch.randn(2, 3, 5, 16)
    want = plain(batch)
    make_rows_stable(plain)
    assert isinstance(plain, RowStableLinear)
    got = plain(batch)
    assert got.shape == want.shape
    torch.testing.assert_close(got, want)
    assert plain(torch.randn(0, 16)).shape == (0, 8)
