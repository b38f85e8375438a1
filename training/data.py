"""Training batches: scenes drawn without end, easy-VQA pictures, and their texts, packed.

Every picture's caption and questions share one sequence: the language model sees
``[image][text 1][text 2]…``, each text attending only to the image and to itself. That is the
same computation as one sequence a text (same positions, same attention), at a third of its cost.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset
from transformers import GPT2Tokenizer

from blip2cli.tiny.kinds import KINDS
from blip2cli.tiny.scenes import (
    MAX_OBJECTS,
    Placed,
    Scene,
)
from training.build import GRID, IMAGE_SIZE, QUERIES
from training.easyvqa import ShapePicture
from training.labels import UNKNOWN, patch_labels, scene_slots, shape_slots
from training.random_scenes import COUNT_SHARES, degrade, random_kinds, random_scene
from training.texts import Text, scene_texts

PACKED = 72  # text tokens a picture
CHUNK = 16  # scenes handed over at a time
# How many objects a scene for training has: the more, the harder, so they come more often than in
# the scenes the model is measured on.
TRAINING_SHARES = {1: 0.08, 2: 0.18, 3: 0.32, 4: 0.38, 5: 0.04}


@dataclass
class Batch:
    """One training step's worth: B pictures.

    ``pixels`` uint8 [B, 3, S, S]; ``ids``, ``positions``, ``targets`` int64 [B, PACKED];
    ``mask`` float32 [B, 1, Q+PACKED, Q+PACKED], 0 where attention is allowed;
    ``patch_kind``, ``patch_center``, ``patch_count``, ``patch_group`` int64 [B, GRID²] and
    ``patch_offset`` float32 [B, GRID², 2]: see ``PatchLabels``; ``slots`` int64
    [B, 2·MAX_OBJECTS + 3]:
    kinds and counts of the groups, background, shape colour, number of objects; ``row_kind``
    int64 [B, MAX_OBJECTS], ``row_place`` float32 [B, MAX_OBJECTS, 2]: the objects from left to
    right, what they are and where.
    """

    pixels: Tensor
    ids: Tensor
    positions: Tensor
    targets: Tensor
    mask: Tensor
    patch_kind: Tensor
    patch_center: Tensor
    patch_count: Tensor
    patch_group: Tensor
    patch_offset: Tensor
    slots: Tensor
    row_kind: Tensor
    row_place: Tensor


class SceneStream(IterableDataset[list[tuple[NDArray[np.uint8], Scene]]]):
    """Scenes without end, in chunks; every worker and every start draws others."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def __iter__(self) -> Iterator[list[tuple[NDArray[np.uint8], Scene]]]:
        worker = torch.utils.data.get_worker_info()
        rng = np.random.default_rng([self.seed, worker.id if worker else 0])
        while True:
            yield [draw_example(rng, TRAINING_SHARES) for _ in range(CHUNK)]


def draw_example(
    rng: np.random.Generator, count_shares: Mapping[int, float] = COUNT_SHARES
) -> tuple[NDArray[np.uint8], Scene]:
    """One scene as the model will read it: uint8 [IMAGE_SIZE, IMAGE_SIZE, 3], and its content."""
    image, scene = random_scene(rng, kinds=random_kinds(rng, count_shares))
    image = degrade(rng, image).resize((IMAGE_SIZE, IMAGE_SIZE), Image.Resampling.BICUBIC)
    return np.asarray(image), scene


def scene_chunks(seed: int, workers: int = 1) -> Iterator[list[tuple[NDArray[np.uint8], Scene]]]:
    """Chunks of fresh scenes, drawn in the background."""
    loader = DataLoader(
        SceneStream(seed),
        batch_size=None,
        num_workers=workers,
        prefetch_factor=16 if workers else None,
        collate_fn=lambda chunk: chunk,
    )
    return iter(loader)


def mirrored(pixels: NDArray[np.uint8], scene: Scene) -> tuple[NDArray[np.uint8], Scene]:
    """The same scene seen in a mirror."""
    objects = tuple(Placed(p.kind, 1 - p.x, p.y, p.width, p.height) for p in scene.objects)
    return pixels[:, ::-1], Scene(objects, scene.background)


class Packer:
    """Turns pictures and their contents into a ``Batch``."""

    def __init__(self, tokenizer: GPT2Tokenizer) -> None:
        end = tokenizer.convert_tokens_to_ids("Ċ")
        assert isinstance(end, int)
        self.end = end
        self.bos = tokenizer.bos_token_id
        self.pad = tokenizer.pad_token_id
        encode = tokenizer.backend_tokenizer.encode  # the Rust tokenizer itself: no overhead a call
        self.encode = lru_cache(200_000)(
            lambda text: tuple(encode(text, add_special_tokens=False).ids) if text else ()
        )

    def pack(self, texts: Sequence[Text]) -> tuple[NDArray[np.int64], ...]:
        """Ids, positions, targets and text numbers (0: padding), each int64 [PACKED].

        Texts that no longer fit are left out.
        """
        ids = np.full(PACKED, self.pad, np.int64)
        positions = np.zeros(PACKED, np.int64)
        targets = np.full(PACKED, UNKNOWN, np.int64)
        numbers = np.zeros(PACKED, np.int64)
        at = 0
        for number, text in enumerate(texts, 1):
            prompt = (self.bos, *self.encode(text.prompt))
            target = (*self.encode(text.target), self.end)
            length = len(prompt) + len(target) - 1  # the end token is a target only
            if at + length > PACKED:
                continue
            ids[at : at + length] = (*prompt, *target)[:length]
            positions[at : at + length] = QUERIES + np.arange(length)
            targets[at + len(prompt) - 1 : at + length] = target
            numbers[at : at + length] = number
            at += length
        return ids, positions, targets, numbers

    def batch(
        self,
        scenes: Sequence[tuple[NDArray[np.uint8], Scene]],
        shapes: Sequence[tuple[NDArray[np.uint8], ShapePicture]],
        rng: random.Random,
        questions: int = 7,
        sides: bool = False,
    ) -> Batch:
        """Scenes first, then easy-VQA pictures. ``sides``: more questions about left and right."""
        texts = [scene_texts(rng, scene, questions, sides) for _, scene in scenes]
        texts += [picture.texts(rng, questions) for _, picture in shapes]
        batch = self._assemble([pixels for pixels, _ in (*scenes, *shapes)], texts)
        for i, (_, scene) in enumerate(scenes):
            labels = patch_labels(scene)
            batch.patch_kind[i] = torch.from_numpy(labels.kind)
            batch.patch_center[i] = torch.from_numpy(labels.center)
            batch.patch_count[i] = torch.from_numpy(labels.count)
            batch.patch_group[i] = torch.from_numpy(labels.group)
            batch.patch_offset[i] = torch.from_numpy(labels.offset)
            batch.slots[i] = torch.tensor(scene_slots(scene))
            row = sorted(scene.objects, key=lambda placed: placed.x)
            batch.row_kind[i] = len(KINDS)
            for j, placed in enumerate(row):
                batch.row_kind[i, j] = KINDS.index(placed.kind)
                batch.row_place[i, j] = torch.tensor((placed.x, placed.y))
        for i, (_, picture) in enumerate(shapes, len(scenes)):
            batch.slots[i] = torch.tensor(shape_slots(picture))
        return batch

    def evaluation_batch(
        self, pictures: Sequence[NDArray[np.uint8]], texts: Sequence[Sequence[Text]]
    ) -> tuple[Batch, Tensor]:
        """All texts of every picture, as many sequences as they need, and each one's picture.

        The batch's pixels are one entry a picture; its other tensors one a sequence. The helper
        heads' labels are unknown.
        """
        sequences: list[list[Text]] = []
        owners: list[int] = []
        for picture, its_texts in enumerate(texts):
            space = 0
            for text in its_texts:
                length = len(self.encode(text.prompt)) + len(self.encode(text.target)) + 1
                if length > space:
                    sequences.append([])
                    owners.append(picture)
                    space = PACKED
                sequences[-1].append(text)
                space -= length
        return self._assemble(pictures, sequences), torch.tensor(owners)

    def _assemble(
        self, pictures: Sequence[NDArray[np.uint8]], texts: Sequence[Sequence[Text]]
    ) -> Batch:
        """Pictures and packed texts; the helper heads' labels are all unknown yet."""
        packed = [self.pack(each) for each in texts]
        ids, positions, targets, numbers = (np.stack(rows) for rows in zip(*packed, strict=True))
        count, patches = len(pictures), GRID * GRID
        return Batch(
            pixels=torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).contiguous(),
            ids=torch.from_numpy(ids),
            positions=torch.from_numpy(positions),
            targets=torch.from_numpy(targets),
            mask=attention_mask(numbers),
            patch_kind=torch.full((count, patches), UNKNOWN),
            patch_center=torch.full((count, patches), UNKNOWN),
            patch_count=torch.full((count, patches), UNKNOWN),
            patch_group=torch.full((count, patches), UNKNOWN),
            patch_offset=torch.zeros(count, patches, 2),
            slots=torch.full((count, 2 * MAX_OBJECTS + 3), UNKNOWN),
            row_kind=torch.full((count, MAX_OBJECTS), UNKNOWN),
            row_place=torch.zeros(count, MAX_OBJECTS, 2),
        )


def attention_mask(numbers: NDArray[np.int64]) -> Tensor:
    """The packed sequences' mask: float32 [B, 1, Q+PACKED, Q+PACKED], 0 or far below any score."""
    same = (numbers[:, :, None] == numbers[:, None, :]) & np.tri(PACKED, dtype=bool)
    allowed = np.zeros((len(numbers), QUERIES + PACKED, QUERIES + PACKED), bool)
    allowed[:, :QUERIES, :QUERIES] = np.tri(QUERIES, dtype=bool)
    allowed[:, QUERIES:, :QUERIES] = True
    allowed[:, QUERIES:, QUERIES:] = same
    return torch.from_numpy(np.where(allowed, np.float32(0), np.float32(-1e9))[:, None])


class Pool:
    """The last ``size`` scenes drawn; each is used a few times before a new one takes its place."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.scenes: list[tuple[NDArray[np.uint8], Scene]] = []
        self.at = 0

    def add(self, chunk: Sequence[tuple[NDArray[np.uint8], Scene]]) -> None:
        """Put new scenes in, the oldest out."""
        for example in chunk:
            if len(self.scenes) < self.size:
                self.scenes.append(example)
            else:
                self.scenes[self.at] = example
                self.at = (self.at + 1) % self.size

    def sample(self, rng: random.Random, count: int) -> list[tuple[NDArray[np.uint8], Scene]]:
        """Random scenes, half of them seen in a mirror."""
        chosen = rng.sample(self.scenes, count)
        return [mirrored(*example) if rng.random() < 0.5 else example for example in chosen]


def sample_shapes(
    rng: random.Random, pictures: Sequence[ShapePicture], count: int
) -> list[tuple[NDArray[np.uint8], ShapePicture]]:
    """Random easy-VQA pictures, turned by quarter turns and mirrored: their answers stay true."""
    sampled = []
    for picture in rng.sample(list(pictures), count):
        pixels = np.rot90(picture.pixels, rng.randrange(4))
        sampled.append((pixels[:, ::-1] if rng.random() < 0.5 else pixels, picture))
    return sampled
