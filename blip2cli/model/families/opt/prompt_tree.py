"""Prompts as trees of tokens: what several prompts of an image begin with is computed once.

The keys and values of a position depend on the image and on the tokens up to there alone. Questions
in one template share its beginning (``Question:``), so that a few questions about each of many
images have two thirds of the positions that they have one by one; and padding is no node at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from blip2cli.model.decoding.async_copy import to_device
from blip2cli.model.decoding.requests import ImagePrompt
from blip2cli.model.layers.linear import ROW_MULTIPLE


@dataclass(frozen=True)
class PromptTree:
    """The nodes of U prompts: N tokens behind different beginnings, or behind different images.

    N is a multiple of ``ROW_MULTIPLE``: the first node is repeated. Rows of eight nodes stand for
    sequences in linear layers, so that all of their products have one number of rows (see
    ``layers/gemm_rows``).
    """

    images: Tensor  # [U], the row of each prompt's image
    ids: Tensor  # [N / 8, 8], the token of each node
    positions: Tensor  # [N / 8, 8], behind the image, from 0
    nodes: Tensor  # [U, T], the node at each position of each prompt; padding repeats the last
    places: Tensor  # [N], where each node is first among the U x T positions

    @staticmethod
    def of(prompts: Sequence[ImagePrompt], length: int, device: torch.device) -> PromptTree:
        """The tree of prompts of 1 to ``length`` ids; T is ``length``."""
        children: dict[tuple[int, int], int] = {}  # by parent (~image at the top) and token
        ids: list[int] = []
        positions: list[int] = []
        places: list[int] = []
        nodes: list[int] = []
        for image, prompt in prompts:
            node = ~image
            for position, token in enumerate(prompt):
                node = children.setdefault((node, token), len(ids))
                if node == len(ids):
                    ids.append(token)
                    positions.append(position)
                    places.append(len(nodes))
                nodes.append(node)
            nodes += [node] * (length - len(prompt))
        for numbers in (ids, positions, places):
            numbers += numbers[:1] * (-len(numbers) % ROW_MULTIPLE)
        images = [image for image, _ in prompts]
        sizes = [len(each) for each in (images, ids, positions, nodes, places)]
        sent = to_device([*images, *ids, *positions, *nodes, *places], device).split(sizes)
        return PromptTree(
            sent[0],
            sent[1].view(-1, ROW_MULTIPLE),
            sent[2].view(-1, ROW_MULTIPLE),
            sent[3].view(len(prompts), length),
            sent[4],
        )
