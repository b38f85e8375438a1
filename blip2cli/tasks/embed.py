"""Embeddings: one vector per image, from the vision encoder or from the Q-Former."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, Self, get_args

from blip2cli.errors import OptionError
from blip2cli.model.resolve import family_at_hand
from blip2cli.sinks.base import Column
from blip2cli.tasks.base import Row, blank, good, head

if TYPE_CHECKING:
    import torch

    from blip2cli.images.loader import Loaded, LoadedBatch
    from blip2cli.model.checkpoint import Family
    from blip2cli.model.features import ImageFeatures
    from blip2cli.model.wrapper import Blip2
    from blip2cli.options import ModelOptions

Kind = Literal["projection", "image", "qformer", "multimodal"]
Pool = Literal["cls", "mean", "none"]

# The kinds every BLIP-2 model has; the others need the projection heads of a retrieval model.
GENERATIVE_KINDS: tuple[Kind, ...] = ("image", "qformer")
DEFAULT_POOL: dict[Kind, Pool] = {"image": "cls", "qformer": "mean"}
_POOLS: dict[Kind, tuple[Pool, ...]] = {"image": ("cls", "mean"), "qformer": ("mean", "none")}


@dataclass(frozen=True)
class EmbedTask:
    """One row per image: ``embedding`` (float32) and ``kind``.

    * ``image``, pool ``cls``: the vision encoder's pooled output, ``[Dv]``; ``mean``: the mean
      over the patches of its last hidden state, without the class token, ``[Dv]``.
    * ``qformer``, pool ``mean``: the mean over the query outputs, ``[Dq]``; ``none``: all query
      outputs row by row, ``[Q * Dq]``.

    Vectors are as the model gives them, not normalised. ``size`` is known once ``fit`` has seen
    the model.
    """

    kind: Kind = "image"
    pool: Pool | None = None
    size: int | None = None

    name = "embed"
    only = None

    def __post_init__(self) -> None:
        if self.kind not in get_args(Kind):
            raise OptionError(
                f"--kind {self.kind} is unknown; choose one of {', '.join(get_args(Kind))}."
            )
        if self.kind not in GENERATIVE_KINDS or self.pool is None:
            return
        if self.pool not in _POOLS[self.kind]:
            raise OptionError(
                f"--pool {self.pool} does not fit --kind {self.kind}, which has "
                f"{' and '.join(_POOLS[self.kind])}."
            )

    @property
    def pooling(self) -> Pool:
        """The pool that is used: the given one, or the kind's default."""
        return self.pool or DEFAULT_POOL[self.kind]

    @property
    def columns(self) -> tuple[Column, ...]:
        return (Column("embedding", "embedding", self.size), Column("kind", "string"))

    @property
    def settings(self) -> dict[str, object]:
        return {"task": self.name, "kind": self.kind, "pool": self.pooling}

    def check(self, model: ModelOptions) -> None:
        self._check_family(model.model, family_at_hand(model))

    def _check_family(self, model: str, family: Family | None) -> None:
        if self.kind not in GENERATIVE_KINDS and family not in ("itm", None):
            raise OptionError(
                f"The model {model} has no projection head, so there is no --kind {self.kind}; "
                f"it has --kind {' and --kind '.join(GENERATIVE_KINDS)}."
            )

    def fit(self, model: Blip2) -> Self:
        """Learn the vectors' size from ``model``."""
        self._check_family(model.name, model.family)
        if self.kind == "image":
            return replace(self, size=model.model.vision_model.config.hidden_size)
        _, queries, width = model.model.query_tokens.shape
        return replace(self, size=queries * width if self.pooling == "none" else width)

    def rows(self, model: Blip2, batch: LoadedBatch) -> list[Row]:
        items = good(batch)
        if not items:
            return []
        # One copy to the host per batch; float() because a bfloat16 tensor has no NumPy form.
        vectors = self._vectors(model.features(batch.pixels)).float().cpu().numpy()
        return [
            head(item) | {"embedding": vector, "kind": self.kind}
            for item, vector in zip(items, vectors, strict=True)
        ]

    def row_count(self, file_name: str) -> int:
        return 1

    def failed_rows(self, item: Loaded) -> list[Row]:
        return [blank(item, self.columns) | {"kind": self.kind}]

    def _vectors(self, features: ImageFeatures) -> torch.Tensor:
        """One vector per image, ``[B, D]``, on the model's device and in its dtype."""
        match self.kind, self.pooling:
            case "image", "cls":
                return features.pooled
            case "image", _:
                return features.image_embeds[:, 1:].float().mean(dim=1)
            case _, "none":
                return features.query_output.flatten(1)
            case _:
                return features.query_output.float().mean(dim=1)
