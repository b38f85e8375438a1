"""Labels for the auxiliary heads: the content of a training picture as numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from blip2cli.tiny.kinds import KINDS, groups
from blip2cli.tiny.scenes import BACKGROUNDS, MAX_OBJECTS, Scene
from training.build import GRID
from training.easyvqa import SHAPE_COLORS, SHAPES, ShapePicture

UNKNOWN = -100  # a label that does not count


@dataclass(frozen=True)
class PatchLabels:
    """Labels of every patch of a scene, all [GRID²] and int64 but for ``offset``.

    ``kind`` of the object that covers it (``len(KINDS)``: none); ``center``, 1 where it holds an
    object's centre; ``count``, how many of its kind the scene has; ``group``, where its kind
    comes in the caption, from 0; ``offset`` float32 [GRID², 2], the way to its object's centre,
    right and down, in patches. ``count`` and ``group`` are UNKNOWN where nothing is.
    """

    kind: NDArray[np.int64]
    center: NDArray[np.int64]
    count: NDArray[np.int64]
    group: NDArray[np.int64]
    offset: NDArray[np.float32]


def patch_labels(scene: Scene) -> PatchLabels:
    """The labels of a scene's patches."""
    middles = (np.arange(GRID) + 0.5) / GRID
    boxes = np.asarray([(p.x, p.y, p.width, p.height) for p in scene.objects])
    x, y, width, height = (column[:, None, None] for column in boxes.T)
    right, down = x - middles[None, None, :], y - middles[None, :, None]
    distance = (right / width * 2) ** 2 + (down / height * 2) ** 2
    nearest = distance.argmin(0)
    numbers = np.asarray([KINDS.index(p.kind) for p in scene.objects])
    kinds = np.where(distance.min(0) < 0.9, numbers[nearest], len(KINDS))
    centers = np.zeros((GRID, GRID), np.int64)
    columns = np.clip((boxes[:, 0] * GRID).astype(int), 0, GRID - 1)
    rows = np.clip((boxes[:, 1] * GRID).astype(int), 0, GRID - 1)
    centers[rows, columns] = 1
    kinds[rows, columns] = numbers
    nearest[rows, columns] = np.arange(len(boxes))
    ways = np.stack(
        [boxes[nearest, 0] - middles[None, :], boxes[nearest, 1] - middles[:, None]], axis=-1
    )
    offsets = (ways * GRID).astype(np.float32)
    found = groups(scene.kinds)
    order = [kind for kind, _ in found]
    counts = np.asarray([dict(found)[placed.kind] for placed in scene.objects])
    places = np.asarray([order.index(placed.kind) for placed in scene.objects])
    covered = kinds < len(KINDS)
    return PatchLabels(
        kind=kinds.reshape(-1),
        center=centers.reshape(-1),
        count=np.where(covered, counts[nearest], UNKNOWN).reshape(-1),
        group=np.where(covered, places[nearest], UNKNOWN).reshape(-1),
        offset=offsets.reshape(-1, 2),
    )


def scene_slots(scene: Scene) -> list[int]:
    """Labels of the first query outputs of a scene (see ``Batch.slots``)."""
    found = groups(scene.kinds)
    kinds = [KINDS.index(kind) for kind, _ in found]
    counts = [count for _, count in found]
    missing = MAX_OBJECTS - len(found)
    kinds += [len(KINDS)] * missing
    counts += [0] * missing
    return [*kinds, *counts, BACKGROUNDS.index(scene.background), UNKNOWN, len(scene.objects)]


def shape_slots(picture: ShapePicture) -> list[int]:
    """The same for an easy-VQA picture: one group, its colour; its background has no name."""
    kind = len(KINDS) + 1 + SHAPES.index(picture.shape) if picture.shape else UNKNOWN
    color = SHAPE_COLORS.index(picture.color) if picture.color else UNKNOWN
    none = [len(KINDS)] * (MAX_OBJECTS - 1)
    return [kind, *none, 1, *[0] * (MAX_OBJECTS - 1), UNKNOWN, color, 1]
