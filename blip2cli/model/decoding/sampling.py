"""Sampling of the next token from its logits."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import torch
from torch import Tensor

NO_FLOAT64 = frozenset({"mps"})  # devices, by their types; the host draws for them


def draw(logits: Tensor, uniform: Tensor) -> Tensor:
    """Sample one token a row from logits [R, V], each by a uniform number [R], float64 and on the
    same device or the host; returns [R].

    By inverting the distribution function in float64: one uniform number decides, so the
    draw is the same on every device that gives the same logits.
    """
    if logits.device.type in NO_FLOAT64:
        return draw(logits.cpu(), uniform).to(logits.device)
    total = logits.double().softmax(dim=-1).cumsum(dim=-1)
    # Scaled by the last sum, which rounding leaves just off 1: the point is always below it.
    point = uniform.to(total.device)[:, None] * total[:, -1:]
    return torch.searchsorted(total, point, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


def uniform_numbers(generators: Sequence[torch.Generator], count: int = 1) -> Tensor:
    """The next ``count`` uniform numbers of each generator, float64 on the host: [R, count]."""
    return torch.stack([torch.rand(count, generator=g, dtype=torch.float64) for g in generators])


def generator_of(seed: int, name: str, number: int) -> torch.Generator:
    """The generator of one draw, from the run's seed and the row's name."""
    # surrogateescape names (paths that are not UTF-8) have bytes of their own.
    key = f"{seed}\0{number}\0{name}".encode("utf-8", "surrogateescape")
    digest = hashlib.blake2b(key, digest_size=8).digest()
    generator = torch.Generator()
    generator.manual_seed(int.from_bytes(digest, "little") >> 1)
    return generator
