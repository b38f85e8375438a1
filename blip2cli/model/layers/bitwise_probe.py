"""Probes whether matrix products of two row counts give a row the same bits.

Where the number of rows decides the summation order of a product (see ``gemm_rows``), two numbers
often give one order: it depends on the layer's sizes and the threads, and on no value in the rows.
So the layer itself is tried, once for each pair of numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Results to compare where they are rounded to bfloat16: two orders of a sum then show in one of
# 12,000, in one of 200,000 at worst (measured with 26 shapes and 31 numbers of rows).
RESULTS = 2_000_000

# From rows [N, I], a residual [N, O] and a bias [O] to results [N, O].
Product = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


def gives_same_bits(
    product: Product,
    plain: Callable[[Tensor], Tensor],
    sizes: tuple[int, int, int, int],
    biased: bool,
    adds: bool,
    results: int = RESULTS,
) -> bool:
    """Whether ``product`` gives ``few`` rows the bits that it gives them among ``many``.

    ``sizes`` are I, O, ``few`` and ``many``. ``product`` takes a bias if ``biased``, and a residual
    if ``adds``; ``plain`` takes neither, and has no activation. ``results`` numbers are compared
    where rounding hides most differences.
    """
    inputs, outputs, few, many = sizes
    generator = torch.Generator().manual_seed(few)

    def rows(count: int) -> Tensor:
        return torch.randn(count, inputs, generator=generator).bfloat16()

    def same(states: Tensor, residual: Tensor | None, bias: Tensor | None) -> bool:
        short = product(states[:few], None if residual is None else residual[:few], bias)
        return torch.equal(short, product(states, residual, bias)[:few])

    if biased or adds:
        # One row again and again, less its own rounded result: what is left shows the last bits
        # of its sums.
        states = rows(1).expand(many, -1).contiguous()
        negative = plain(states[:few])[0].neg()
        bias = negative if biased else None
        residual = torch.zeros_like(negative) if biased else negative
        return same(states, residual.expand(many, -1).contiguous() if adds else None, bias)
    times = -(-results // (few * outputs))
    return all(same(rows(many), None, None) for _ in range(times))
