"""The options of ranking captions by a second model."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

from blip2cli.errors import OptionError, option
from blip2cli.options.declare import RANKING, OptionGroup, declare

RankBy = Literal["match", "contrast"]

_ranking = partial(declare, panel=RANKING, shapes_rows=True, about_images=True)


@dataclass(frozen=True)
class RankOptions(OptionGroup):
    """Which retrieval model compares captions with their image, and how."""

    rank_with: str | None = _ranking(
        None,
        f"A retrieval model that picks the best of {option('num_captions')} captions: hub id, "
        "local directory, or tiny-itm. Rows get its score as match.",
        metavar="MODEL",
        offers="models",
    )
    rank_by: RankBy = _ranking(
        "match",
        "match: the matching head, the probability that image and text fit; contrast: their "
        "cosine, which is quicker and less exact.",
    )
    min_match: float | None = _ranking(
        None,
        "Abstain where the best caption fits with a lower probability: caption is null, flag "
        "abstained, and guess the best one.",
        metavar="P",
    )

    def __post_init__(self) -> None:
        """Raise ``OptionError`` for options that contradict one another."""
        super().__post_init__()
        for name in ("rank_by", "min_match"):
            given = getattr(self, name) != getattr(RankOptions, name)
            if given and self.rank_with is None:
                raise OptionError(
                    name,
                    f"{option(name)} is about scores of a retrieval model",
                    f"name one with {option('rank_with')}",
                )
        least = self.min_match
        if least is None:
            return
        if not (math.isfinite(least) and 0 <= least <= 1):
            raise OptionError(
                "min_match", f"{option('min_match')} is a probability, from 0 to 1, not {least}"
            )
        if self.rank_by != "match":
            raise OptionError(
                "min_match",
                f"{option('min_match')} is a probability, and cosines of different images "
                "cannot be compared",
                f"take {option('rank_by')} match, or leave one of the two out",
            )

    @property
    def settings(self) -> dict[str, object]:
        """As of any group; without a model none of the others shapes anything."""
        return super().settings if self.rank_with is not None else {"rank_with": None}
