"""The options of embeddings."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Literal

from blip2cli.options.declare import VECTORS, OptionGroup, declare

Kind = Literal["image", "qformer", "projection", "multimodal", "language"]
Pool = Literal["cls", "mean", "none"]
EmbeddingDtype = Literal["float32", "float16"]

_vector = partial(declare, panel=VECTORS, about_images=False)
_recorded_vector = partial(_vector, shapes_rows=True)
_unrecorded_vector = partial(_vector, shapes_rows=False)


@dataclass(frozen=True)
class EmbedOptions(OptionGroup):
    """Which vectors, of what, and how they are written."""

    kind: Kind | None = _recorded_vector(
        None,
        "image: the vision encoder's; qformer: the Q-Former's; projection: in the space "
        "that images and texts share; multimodal: the Q-Former's, of an image with a text "
        "(these two: retrieval models); language: the language model's, of a text.",
        default_help="image; of texts projection, or language",
        brief="{choices}.",
    )
    pool: Pool | None = _recorded_vector(
        None,
        "cls: the class token; mean: over patches, queries or tokens; none: all queries "
        "row by row, so D = queries × width.",
        default_help="cls for image and for texts of retrieval models, else mean",
        brief="How patches, queries or tokens become one: {choices}.",
    )
    text: tuple[str, ...] = _unrecorded_vector(
        (),
        "A text to embed in place of images, or beside each (multimodal); repeatable.",
        metavar="TEXT",
        brief="A text in place of images, or beside each; repeatable.",
    )
    texts: str | None = _unrecorded_vector(
        None,
        "The same from a .txt with one text a line, or a .jsonl, .csv or .tsv table with "
        "a column text.",
        metavar="FILE",
        brief="The same from a .txt, a text a line, or a table.",
    )
    normalize: bool = _recorded_vector(False, "Give every vector the length 1 (L2).", brief=True)
    embedding_dtype: EmbeddingDtype = _recorded_vector(
        "float32", "What the numbers are written as."
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        self._refuse_both("text", "texts", "texts")
