"""Probing whether two row counts give the same bits."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from blip2cli.model.layers.bitwise_probe import gives_same_bits

INSIDE, OUTSIDE = 600, 40
KINDS = [(biased, adds) for biased in (True, False) for adds in (True, False)]


class Cut:
    """A product whose sums are cut into pieces where it has many rows."""

    def __init__(self, pieces: int, rows: int = 100) -> None:
        generator = torch.Generator().manual_seed(1)
        self.weight = torch.randn(INSIDE, OUTSIDE, generator=generator).bfloat16().float()
        self.pieces, self.rows = pieces, rows
        self.calls = 0

    def plain(self, rows: Tensor) -> Tensor:
        return self(rows, None, None)

    def __call__(self, rows: Tensor, residual: Tensor | None, bias: Tensor | None) -> Tensor:
        self.calls += 1
        pieces = self.pieces if len(rows) >= self.rows else 1
        made = torch.zeros(len(rows), OUTSIDE)
        for some, weight in zip(
            rows.float().tensor_split(pieces, 1), self.weight.tensor_split(pieces), strict=True
        ):
            piece = torch.zeros(len(rows), OUTSIDE)
            for number in range(0, some.shape[1], 30):  # an order that no kernel decides
                each = some[:, number : number + 30, None] * weight[number : number + 30]
                piece += each.sum(1)
            made += piece
        for more in (residual, bias):
            made = made if more is None else made + more.float()
        return made.bfloat16()


@pytest.mark.parametrize(("biased", "adds"), KINDS)
def test_sums_of_one_order_give_the_same_bits(biased: bool, adds: bool) -> None:
    product = Cut(3)
    assert gives_same_bits(product, product.plain, (INSIDE, OUTSIDE, 8, 16), biased, adds, 2000)
    assert gives_same_bits(product, product.plain, (INSIDE, OUTSIDE, 104, 112), biased, adds, 2000)


@pytest.mark.parametrize(("biased", "adds"), KINDS)
@pytest.mark.parametrize("pieces", [2, 3, 5])
def test_sums_that_are_cut_do_not(biased: bool, adds: bool, pieces: int) -> None:
    product = Cut(pieces)
    assert not gives_same_bits(
        product, product.plain, (INSIDE, OUTSIDE, 32, 104), biased, adds, 200_000
    )
    if biased or adds:
        assert product.calls == 3  # what is left of a sum shows at once
