"""Token sequences as trees: what several of them begin with is computed once.

The keys and values of a position depend on what is in front of it alone. Questions about one image
in one template share its beginning (``Question:``), choices share the last tokens of their prompt:
the five questions of ``benchmarks/work.py`` have seven tenths of the positions that they have one
by one. Padding is no node at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blip2cli.model.decoding.async_copy import to_device
from blip2cli.model.layers.linear import ROW_MULTIPLE


@dataclass(frozen=True)
class TokenTree:
    """The N nodes of U sequences: tokens behind different beginnings.

    N is a multiple of ``ROW_MULTIPLE``: the first node is repeated. Nodes lie in rows of eight,
    which linear layers take for sequences of one length: where a row's bits depend on the number of
    rows in a product, all products of a layer have the same (see ``layers/gemm_rows``).
    """

    follows: Tensor  # [U], the number of what each sequence follows
    ids: Tensor  # [N / 8, 8], the token of each node
    positions: Tensor  # [N / 8, 8], from 0
    nodes: Tensor  # [U, T], the node at each position of each sequence; padding repeats the last
    places: Tensor  # [N], where each node is first among the U x T positions

    @staticmethod
    def of(
        sequences: Sequence[tuple[int, Sequence[int]]], length: int, device: torch.device
    ) -> TokenTree:
        """The tree of sequences of 1 to ``length`` ids; T is ``length``.

        Each comes with the number of what it follows: those with another one share nothing.
        """
        children: dict[tuple[int, int], int] = {}  # by parent (~number at the top) and token
        ids: list[int] = []
        positions: list[int] = []
        places: list[int] = []
        nodes: list[int] = []
        for number, sequence in sequences:
            node = ~number
            for position, token in enumerate(sequence):
                node = children.setdefault((node, token), len(ids))
                if node == len(ids):
                    ids.append(token)
                    positions.append(position)
                    places.append(len(nodes))
                nodes.append(node)
            nodes += [node] * (length - len(sequence))
        for numbers in (ids, positions, places):
            numbers += numbers[:1] * (-len(numbers) % ROW_MULTIPLE)
        follows = [number for number, _ in sequences]
        sizes = [len(each) for each in (follows, ids, positions, nodes, places)]
        sent = to_device([*follows, *ids, *positions, *nodes, *places], device).split(sizes)
        return TokenTree(
            sent[0],
            sent[1].view(-1, ROW_MULTIPLE),
            sent[2].view(-1, ROW_MULTIPLE),
            sent[3].view(len(sequences), length),
            sent[4],
        )
