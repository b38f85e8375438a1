"""Whether products of two numbers of rows give a row the same bits, found out by trying.

Where the number of rows decides the order of a product's sums (see ``calls``), two numbers often
give one order: it depends on the layer's sizes, the threads, and on nothing in the rows. So the
layer itself is tried, once for each pair of numbers.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

# Results to compare where they are rounded to bfloat16: two orders of a sum then show in one of
# 12,000, in one of 200,000 at worst (measured with 26 shapes and 31 numbers of rows).
RESULTS = 2_000_000

# From rows [N, I], what is added [N, O] and a bias [O] to results [N, O].
Product = Callable[[Tensor, Tensor | None, Tensor | None], Tensor]


def gives_same_bits(
    product: Product,
    plain: Callable[[Tensor], Tensor],
    sizes: tuple[int, int, int, int],
    biased: bool,
    adds: bool,
) -> bool:
    """Whether ``product`` gives ``few`` rows the bits that it gives them among ``many``.

    ``sizes`` are I, O, ``few`` and ``many``. ``product`` takes a bias if it is ``biased``, and
    something to add if it ``adds``; ``plain`` takes neither, and has no activation.
    """
    inside, outside, few, many = sizes
    generator = torch.Generator().manual_seed(few)

    def rows(count: int) -> Tensor:
        return torch.randn(count, inside, generator=generator).bfloat16()

    def same(states: Tensor, beside: Tensor | None, bias: Tensor | None) -> bool:
        short = product(states[:few], None if beside is None else beside[:few], bias)
        return torch.equal(short, product(states, beside, bias)[:few])

    if biased or adds:
        # One row again and again, less its own rounded result: what is left shows the last bits
        # of its sums.
        states = rows(1).expand(many, -1).contiguous()
        rest = plain(states[:few])[0].neg()
        bias = rest if biased else None
        added = torch.zeros_like(rest) if biased else rest
        return same(states, added.expand(many, -1).contiguous() if adds else None, bias)
    times = -(-RESULTS // (few * outside))
    return all(same(rows(many), None, None) for _ in range(times))
