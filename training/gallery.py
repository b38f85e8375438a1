"""Cache of image embeddings and query outputs of ``tiny``, computed once and stored in a file.

The embedded models beside ``tiny`` share its vision encoder, so a picture's image embeddings
never change while they learn: a step then costs what the trained part costs, and nothing else.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from transformers import Blip2ForConditionalGeneration

from blip2cli.tiny.scenes import Placed, Scene
from training.data import mirrored, scene_chunks
from training.easyvqa import ShapePicture, load_split
from training.evaluate import see

SEED = 7_000
Example = tuple[NDArray[np.uint8], Scene]


@dataclass(frozen=True)
class Gallery:
    """N scenes, then M easy-VQA pictures, as the vision side of ``tiny`` sees them.

    ``image_embeds`` float16 [N+M, P+1, W] and ``query_output`` float16 [N+M, Q, W] are in that
    order.
    """

    scenes: list[Scene]
    shapes: list[ShapePicture]
    image_embeds: Tensor
    query_output: Tensor


def load_gallery(model: Blip2ForConditionalGeneration, folder: Path, scenes: int) -> Gallery:
    """The gallery stored in ``folder``, or a new one of ``scenes`` scenes, half of them mirrored.

    Every picture of easy-VQA's training split is in it twice: as it is, and turned and mirrored
    by chance (its answers stay true).
    """
    splits = load_split("train")
    shapes = splits + splits
    file = folder / f"gallery-{scenes}.pt"
    if not file.exists():
        folder.mkdir(parents=True, exist_ok=True)
        drawn: list[Scene] = []
        seen = []
        for pixels, contents in _scenes(scenes):
            drawn += contents
            seen.append(embed_all(model, pixels))
        rng = np.random.default_rng(SEED)
        turned = [_turned(rng, each.pixels) for each in splits]
        pictures = [each.pixels for each in splits] + turned
        seen.append(embed_all(model, pictures))
        state = {
            "scenes": [[[astuple(p) for p in s.objects], s.background] for s in drawn],
            "image_embeds": torch.cat([each[0] for each in seen]),
            "query_output": torch.cat([each[1] for each in seen]),
        }
        temporary = file.with_suffix(".tmp")
        torch.save(state, temporary)
        os.replace(temporary, file)
    state = torch.load(file, weights_only=True, mmap=True)
    read = [Scene(tuple(Placed(*p) for p in placed), name) for placed, name in state["scenes"]]
    return Gallery(read, shapes, state["image_embeds"], state["query_output"])


def _scenes(count: int) -> Iterator[tuple[list[NDArray[np.uint8]], list[Scene]]]:
    """Fresh scenes with their mirror images, in batches of 64."""
    chunks = scene_chunks(SEED)
    for _ in range(0, count, 64):
        examples = [*next(chunks), *next(chunks)]
        examples += [mirrored(*example) for example in examples]
        yield [pixels for pixels, _ in examples], [scene for _, scene in examples]


def _turned(rng: np.random.Generator, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    turned = np.rot90(pixels, int(rng.integers(4)))
    return turned[:, ::-1] if rng.random() < 0.5 else turned


def embed_all(
    model: Blip2ForConditionalGeneration, pictures: Sequence[NDArray[np.uint8]]
) -> tuple[Tensor, Tensor]:
    """Image embeddings [N, P+1, W] and query outputs [N, Q, W], float16, of uint8 [S, S, 3]."""
    found = [_embed(model, pictures[i : i + 64]) for i in range(0, len(pictures), 64)]
    return torch.cat([each[0] for each in found]), torch.cat([each[1] for each in found])


@torch.inference_mode()
def _embed(
    model: Blip2ForConditionalGeneration, pictures: Sequence[NDArray[np.uint8]]
) -> tuple[Tensor, Tensor]:
    pixels = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2)
    image_embeds, query_output = see(model, pixels)
    return image_embeds.half(), query_output.half()
