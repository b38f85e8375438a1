"""Image embeddings: one vector per image, from the vision encoder or the Q-Former."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from blip2cli.errors import OptionError, option
from blip2cli.options import EmbedOptions, Kind, Pool
from blip2cli.sinks.base import Column
from blip2cli.tasks.base import Row, blank, first_columns
from blip2cli.tasks.texts import Texts
from blip2cli.tasks.vectors import IMAGE_POOLS, embedding_column, finish_vectors, resolve_pool

if TYPE_CHECKING:
    import torch

    from blip2cli.images.batch_stream import LoadedBatch, LoadedImage
    from blip2cli.model.families import Family
    from blip2cli.model.vision.features import ImageFeatures
    from blip2cli.model.wrapper import Blip2


@dataclass(frozen=True)
class EmbedTask:
    """One row per image: ``embedding`` and ``kind``; the vectors of ``vectors.IMAGE_POOLS``.

    The kind ``multimodal`` looks at each image with each of ``texts``: one row per image and
    text, with the column ``text``. ``size``, the numbers in a row's embedding, is set by
    ``fit``.
    """

    options: EmbedOptions = field(default_factory=EmbedOptions)
    texts: Texts = field(default_factory=Texts)
    size: int | None = None

    name = "embed"
    only = None

    def __post_init__(self) -> None:
        resolve_pool(self.kind, self.options.pool, IMAGE_POOLS)
        if self.kind == "multimodal" and not self.texts:
            raise OptionError(
                "text",
                f"{option('kind')} multimodal looks at an image with a text beside it",
                f"give one with {option('text')}",
            )
        if self.kind != "multimodal" and self.texts:
            raise OptionError(
                "text",
                f"{option('kind')} {self.kind} looks at images alone",
                f"leave out {option('sources')} to embed the texts, or take {option('kind')} "
                "multimodal to look at both together",
            )

    @property
    def kind(self) -> Kind:
        """The given kind, or "image"."""
        return self.options.kind or "image"

    @property
    def pool(self) -> Pool:
        """The given pool, or the kind's default."""
        return resolve_pool(self.kind, self.options.pool, IMAGE_POOLS)

    @property
    def columns(self) -> tuple[Column, ...]:
        columns = (embedding_column(self.options, self.size), Column("kind", "string"))
        return ((Column("text", "string"),) if self.texts else ()) + columns

    @property
    def settings(self) -> dict[str, object]:
        settings = {"task": self.name} | self.options.settings
        return settings | {"kind": self.kind, "pool": self.pool} | self.texts.settings

    def check(self, model: str, family: Family) -> None:
        if self.kind in ("projection", "multimodal") and family.writes:
            raise OptionError(
                "kind",
                f"The model {model} has no projection head, so there is no {option('kind')} "
                f"{self.kind}",
                f"it has {option('kind')} image and {option('kind')} qformer",
            )

    def fit(self, model: Blip2) -> Self:
        """Learn the vectors' size from ``model``."""
        self.check(model.name, model.family)
        if self.kind == "qformer" and model.instructions is not None:
            raise OptionError(
                "kind",
                f"The Q-Former of {model.name} reads a prompt beside each image, so there is no "
                f"{option('kind')} qformer of the image by itself",
                f"it has {option('kind')} image",
            )
        _, queries, width = model.model.query_tokens.shape
        if self.kind == "image":
            width = model.model.vision_model.config.hidden_size
        elif self.kind == "projection":
            width = model.model.config.image_text_hidden_size
        return replace(self, size=queries * width if self.pool == "none" else width)

    def rows(self, model: Blip2, batch: LoadedBatch) -> list[Row]:
        rows = first_columns(batch)
        if not rows:
            return []
        features = model.features(batch.pixels)
        if self.texts:
            rows = [row | {"text": text} for row in rows for text in self.texts.lines]
        vectors = finish_vectors(self.options, self._vectors(model, features))
        return [
            row | {"embedding": vector, "kind": self.kind}
            for row, vector in zip(rows, vectors, strict=True)
        ]

    def row_count(self, file_name: str) -> int:
        return len(self.texts) or 1

    def failed_rows(self, item: LoadedImage) -> list[Row]:
        row = blank(item, self.columns) | {"kind": self.kind}
        return [row | {"text": text} for text in self.texts.lines] if self.texts else [row]

    def _vectors(self, model: Blip2, features: ImageFeatures) -> torch.Tensor:
        """One vector per image, or image and text, ``[B, D]``, or all queries', ``[B, Q, D]``."""
        if self.kind == "image":
            if self.pool == "cls":
                return features.pooled
            return features.image_embeds[:, 1:].float().mean(dim=1)
        if self.texts:
            from blip2cli.model.retrieval import Pair

            assert model.retrieval is not None  # ``fit`` has seen to it
            pairs = [Pair(i, text) for i in range(len(features)) for text in self.texts.lines]
            states = model.retrieval.multimodal(features, pairs)
            return states if self.pool == "none" else states.mean(dim=1)
        if self.kind == "projection":
            assert model.retrieval is not None  # ``fit`` has seen to it
            queries = model.retrieval.project_images(features)
        else:
            queries = features.query_output
        return queries if self.pool == "none" else queries.float().mean(dim=1)
