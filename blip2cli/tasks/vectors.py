"""What embeddings there are: kinds, pools, and the numbers they are written in.

Which vector a kind and a pool stand for is said in the tables below, once; ``embed`` (images) and
``embed_texts`` compute them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from blip2cli.errors import OptionError
from blip2cli.sinks.base import Column, EmbeddingDtype

if TYPE_CHECKING:
    import numpy as np
    import torch

    from blip2cli.model.checkpoint.directory import Family

Kind = Literal["projection", "image", "qformer", "multimodal", "language"]
Pool = Literal["cls", "mean", "none"]

# The pools of each kind, the default first. Of images:
# image       cls: the vision encoder's pooled class token; mean: over its patches, without that
# qformer     mean: over the query outputs; none: every query output, row by row
# projection  mean: over the projected query outputs, each of length 1; none: every one of them
# multimodal  mean: over the query outputs given a text; none: every one of them
IMAGE_POOLS: dict[Kind, tuple[Pool, ...]] = {
    "image": ("cls", "mean"),
    "qformer": ("mean", "none"),
    "projection": ("mean", "none"),
    "multimodal": ("mean", "none"),
}
# Of texts, whose tokens include those that the tokenizer puts around them:
# projection  cls: the projected class token, of length 1; mean: over all projected tokens
# qformer     cls: the class token in the Q-Former's last hidden state; mean: over its tokens
# language    mean: over the tokens of the language model's last hidden state (T5: its encoder's)
TEXT_POOLS: dict[Kind, tuple[Pool, ...]] = {
    "projection": ("cls", "mean"),
    "qformer": ("cls", "mean"),
    "language": ("mean",),
}
# The kinds that need a retrieval model. A text's Q-Former states do as well.
_RETRIEVAL_KINDS: tuple[Kind, ...] = ("projection", "multimodal")


@dataclass(frozen=True)
class VectorOptions:
    """How vectors are finished, whatever they are of."""

    normalize: bool = False  # divide by the length (L2, in float32)
    dtype: EmbeddingDtype = "float32"  # what their numbers are written as

    def __post_init__(self) -> None:
        if self.dtype not in get_args(EmbeddingDtype):
            raise OptionError(
                f"--embedding-dtype {self.dtype} is unknown; choose one of "
                f"{' and '.join(get_args(EmbeddingDtype))}."
            )

    def column(self, size: int | None) -> Column:
        """The column of vectors of ``size`` numbers."""
        return Column("embedding", "embedding", size, self.dtype)

    @property
    def settings(self) -> dict[str, object]:
        """What of it shapes rows."""
        return {"normalize": self.normalize, "embedding_dtype": self.dtype}

    def finish(self, vectors: torch.Tensor) -> np.ndarray[Any, np.dtype[Any]]:
        """``[N, D]``, or ``[N, Q, D]`` of several vectors each, as rows ``[N, …]`` on the host.

        Several vectors are normalised one by one, then put in a row. Raises OptionError when
        float16 cannot hold a number.
        """
        import torch

        # bfloat16 has no NumPy form, and lengths are to be exact.
        vectors = vectors.float()
        if self.normalize:
            vectors = torch.nn.functional.normalize(vectors, dim=-1)
        vectors = vectors.flatten(1)
        if self.dtype == "float16":
            largest = vectors.abs().amax() if vectors.numel() else vectors.sum()
            vectors = vectors.half()
            if not vectors.isfinite().all() and largest.isfinite():
                raise OptionError(
                    f"A vector holds a number of size {largest.item():.0f}, and float16 ends at "
                    "65504; write it with --embedding-dtype float32, or add --normalize."
                )
        return vectors.cpu().numpy()  # one copy to the host


def pooling(kind: Kind, pool: Pool | None, pools: Mapping[Kind, tuple[Pool, ...]]) -> Pool:
    """The pool that is used: the given one, or the kind's default.

    Raises OptionError for a kind that ``pools`` does not have, or a pool its kind does not.
    """
    if kind not in get_args(Kind):
        raise OptionError(f"--kind {kind} is unknown; choose one of {', '.join(get_args(Kind))}.")
    if kind not in pools:
        what = "images" if pools is IMAGE_POOLS else "texts"
        raise OptionError(f"--kind {kind} is none of {what}; they have {' and '.join(pools)}.")
    if pool is not None and pool not in pools[kind]:
        of = " of texts" if pools is TEXT_POOLS else ""
        raise OptionError(
            f"--pool {pool} does not fit --kind {kind}{of}, which has {' and '.join(pools[kind])}."
        )
    return pool or pools[kind][0]


def check_image_kind(kind: Kind, model: str, family: Family | None) -> None:
    """Raise OptionError when ``model`` has no vectors of this kind; None: it is not known yet."""
    if kind in _RETRIEVAL_KINDS and family not in ("itm", None):
        raise OptionError(
            f"The model {model} has no projection head, so there is no --kind {kind}; it has "
            "--kind image and --kind qformer."
        )


def check_text_kind(kind: Kind | None, model: str, family: Family | None) -> None:
    """Raise OptionError when ``model`` has no vectors of this kind for texts."""
    if family == "itm" and kind == "language":
        raise OptionError(
            f"The model {model} has no language model, so there is no --kind language; its texts "
            "have --kind projection and --kind qformer."
        )
    if family not in ("itm", None) and kind not in ("language", None):
        raise OptionError(
            f"The model {model} is no retrieval model, so its texts have no --kind {kind}; they "
            "have --kind language."
        )
