"""Embeddings of texts without images: one vector per text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Self

from blip2cli.errors import OptionError, option
from blip2cli.options import EmbedOptions, Kind
from blip2cli.sinks.base import Column
from blip2cli.tasks.base import Row
from blip2cli.tasks.vectors import TEXT_POOLS, embedding_column, finish_vectors, resolve_pool

if TYPE_CHECKING:
    import torch

    from blip2cli.model.families import Family
    from blip2cli.model.wrapper import Blip2


@dataclass(frozen=True)
class EmbedTextsTask:
    """One row per text: ``text``, ``embedding`` and ``kind``; the vectors of
    ``vectors.TEXT_POOLS``.

    ``kind`` is ``projection``, in the space of the images' projections, or ``qformer`` with a
    retrieval model, and ``language`` with all others; None takes the model's first one, which
    ``fit`` finds out, together with ``size``.
    """

    options: EmbedOptions = field(default_factory=EmbedOptions)
    size: int | None = None

    name = "embed"

    def __post_init__(self) -> None:
        if self.options.kind is not None:
            resolve_pool(self.options.kind, self.options.pool, TEXT_POOLS)

    @property
    def columns(self) -> tuple[Column, ...]:
        return (
            Column("text", "string"),
            embedding_column(self.options, self.size),
            Column("kind", "string"),
        )

    @property
    def settings(self) -> dict[str, object]:
        kind, pool = self.options.kind, self.options.pool
        if kind is not None:
            pool = resolve_pool(kind, pool, TEXT_POOLS)
        return {"task": self.name} | self.options.settings | {"pool": pool}

    def check(self, model: str, family: Family) -> None:
        kind = self.options.kind
        if not family.writes and kind == "language":
            raise OptionError(
                "kind",
                f"The model {model} has no language model, so there is no {option('kind')} "
                "language",
                f"its texts have {option('kind')} projection and {option('kind')} qformer",
            )
        if family.writes and kind not in ("language", None):
            raise OptionError(
                "kind",
                f"The model {model} is no retrieval model, so its texts have no {option('kind')} "
                f"{kind}",
                f"they have {option('kind')} language",
            )
        resolve_pool(kind or _first_kind(family), self.options.pool, TEXT_POOLS)

    def fit(self, model: Blip2) -> Self:
        """Learn kind and size from ``model``."""
        self.check(model.name, model.family)
        kind = self.options.kind or _first_kind(model.family)
        config = model.model.config
        size = {
            "projection": config.image_text_hidden_size,
            "qformer": config.qformer_config.hidden_size,
        }.get(kind) or model.text_width
        return replace(self, options=replace(self.options, kind=kind), size=size)

    def rows(self, model: Blip2, texts: Sequence[str]) -> list[Row]:
        """One row per text, in order. The task is a fitted one.

        Raises ``OptionError`` for a text that is too long for the model.
        """
        vectors = finish_vectors(self.options, self._vectors(model, texts))
        return [
            {"text": text, "embedding": vector, "kind": self.options.kind}
            for text, vector in zip(texts, vectors, strict=True)
        ]

    def _vectors(self, model: Blip2, texts: Sequence[str]) -> torch.Tensor:
        """One vector per text, ``[N, D]``."""
        import torch

        kind = self.options.kind
        assert kind is not None  # ``fit`` has set it
        retrieval = model.retrieval
        if retrieval is None:
            tokens = model.text_states(texts)
        elif kind == "projection":
            tokens = retrieval.project_tokens(texts)
        else:
            tokens = retrieval.text_states(texts)
        first = resolve_pool(kind, self.options.pool, TEXT_POOLS) == "cls"
        return torch.stack([rows[0] if first else rows.mean(dim=0) for rows in tokens])


def _first_kind(family: Family) -> Kind:
    return "language" if family.writes else "projection"
