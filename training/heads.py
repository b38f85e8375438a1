"""Auxiliary heads: linear probes that supervise the vision encoder and the Q-Former directly.

With the text loss only, a small model learns to see very slowly. These linear heads are thrown away
when training ends: they are no part of the checkpoint.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn.functional import cross_entropy, smooth_l1_loss

from blip2cli.tiny.kinds import KINDS
from blip2cli.tiny.scenes import BACKGROUNDS, MAX_OBJECTS
from training.build import WIDTH
from training.data import Batch
from training.easyvqa import SHAPE_COLORS, SHAPES
from training.labels import UNKNOWN


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over labels that count; ``logits`` [..., C], ``labels`` int64 [...]."""
    return cross_entropy(logits.flatten(0, -2), labels.flatten(), ignore_index=UNKNOWN)


class Heads(nn.Module):
    """Each patch: the kind that covers it, whether it holds an object's centre, the way there,
    how many of its kind there are and where they come in the caption (see ``PatchLabels``): a
    patch that knows these leaves nothing to count for those that read it.

    The query outputs: one group (kind, count) each, then background, shape colour, total; the
    next ones: the objects from left to right, what they are and where. Naming every object by
    itself is what teaches the model to count.
    """

    def __init__(self) -> None:
        super().__init__()
        self.patch_kind = nn.Linear(WIDTH, len(KINDS) + 1)
        self.patch_center = nn.Linear(WIDTH, 2)
        self.patch_count = nn.Linear(WIDTH, MAX_OBJECTS + 1)
        self.patch_group = nn.Linear(WIDTH, MAX_OBJECTS)
        self.patch_offset = nn.Linear(WIDTH, 2)
        self.kind = nn.Linear(WIDTH, len(KINDS) + 1 + len(SHAPES))
        self.count = nn.Linear(WIDTH, MAX_OBJECTS + 1)
        self.background = nn.Linear(WIDTH, len(BACKGROUNDS))
        self.color = nn.Linear(WIDTH, len(SHAPE_COLORS))
        self.total = nn.Linear(WIDTH, MAX_OBJECTS + 1)
        self.row_kind = nn.Linear(WIDTH, len(KINDS) + 1)
        self.row_place = nn.Linear(WIDTH, 2)

    def patch_losses(self, image_embeds: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Losses of the patches; ``image_embeds`` is float32 [B, 1 + GRID², WIDTH]."""
        patches = image_embeds[:, 1:]
        covered = (batch.patch_kind >= 0) & (batch.patch_kind < len(KINDS))
        offset = smooth_l1_loss(
            self.patch_offset(patches)[covered], batch.patch_offset[covered], beta=0.3
        )
        return {
            "patch kind": _cross_entropy(self.patch_kind(patches), batch.patch_kind),
            "patch center": _cross_entropy(self.patch_center(patches), batch.patch_center),
            "patch count": _cross_entropy(self.patch_count(patches), batch.patch_count),
            "patch group": _cross_entropy(self.patch_group(patches), batch.patch_group),
            "patch offset": offset,
        }

    def query_losses(self, query_output: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Cross-entropies of the query outputs; ``query_output`` is float32 [B, Q, WIDTH]."""
        n, slots = MAX_OBJECTS, batch.slots
        row = query_output[:, n + 3 : 2 * n + 3]
        there = (batch.row_kind >= 0) & (batch.row_kind < len(KINDS))
        return {
            "kind": _cross_entropy(self.kind(query_output[:, :n]), slots[:, :n]),
            "count": _cross_entropy(self.count(query_output[:, :n]), slots[:, n : 2 * n]),
            "background": _cross_entropy(self.background(query_output[:, n]), slots[:, 2 * n]),
            "color": _cross_entropy(self.color(query_output[:, n + 1]), slots[:, 2 * n + 1]),
            "total": _cross_entropy(self.total(query_output[:, n + 2]), slots[:, 2 * n + 2]),
            "row": _cross_entropy(self.row_kind(row), batch.row_kind),
            "place": 5
            * smooth_l1_loss(self.row_place(row)[there], batch.row_place[there], beta=0.05),
        }
