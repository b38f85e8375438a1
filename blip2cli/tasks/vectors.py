"""Embeddings: kinds, pools, normalisation and dtype.

The tables below define the vector of every kind and pool; ``embed`` (images) and ``embed_texts``
compute them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from blip2cli.errors import OptionError, option
from blip2cli.options import EmbedOptions, Kind, Pool
from blip2cli.sinks.base import Column

if TYPE_CHECKING:
    import numpy as np
    import torch

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


def embedding_column(options: EmbedOptions, size: int | None) -> Column:
    """The column of vectors of ``size`` numbers."""
    return Column("embedding", "embedding", size, options.embedding_dtype)


def finish_vectors(options: EmbedOptions, vectors: torch.Tensor) -> np.ndarray[Any, np.dtype[Any]]:
    """Vectors ``[N, D]``, or ``[N, Q, D]``, as rows ``[N, D]`` or ``[N, Q * D]`` on the host.

    Each of the Q vectors is normalised by itself. Raises OptionError when float16 cannot hold a
    number.
    """
    import torch

    # NumPy has no bfloat16, and norms are computed in float32.
    vectors = vectors.float()
    if options.normalize:
        vectors = torch.nn.functional.normalize(vectors, dim=-1)
    vectors = vectors.flatten(1)
    if options.embedding_dtype == "float16":
        largest = vectors.abs().amax() if vectors.numel() else vectors.sum()
        vectors = vectors.half()
        if not vectors.isfinite().all() and largest.isfinite():
            raise OptionError(
                "embedding_dtype",
                f"A vector holds a number of size {largest.item():.0f}, and float16 ends at 65504",
                f"write it with {option('embedding_dtype')} float32, or add {option('normalize')}",
            )
    return vectors.cpu().numpy()  # one copy to the host


def resolve_pool(kind: Kind, pool: Pool | None, pools: Mapping[Kind, tuple[Pool, ...]]) -> Pool:
    """``pool``, or the default of ``kind``.

    Raises OptionError for a kind that is not in ``pools``, or a pool its kind does not have.
    """
    if kind not in pools:
        what = "images" if pools is IMAGE_POOLS else "texts"
        raise OptionError(
            "kind",
            f"{option('kind')} {kind} is none of {what}",
            f"they have {' and '.join(pools)}",
        )
    if pool is not None and pool not in pools[kind]:
        of = " of texts" if pools is TEXT_POOLS else ""
        raise OptionError(
            "pool",
            f"{option('pool')} {pool} does not fit {option('kind')} {kind}{of}, which has "
            f"{' and '.join(pools[kind])}",
        )
    return pool or pools[kind][0]
