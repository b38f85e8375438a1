"""The frozen options of a conversion of checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

StoredDtype = Literal["float32", "bfloat16", "float16"]
DEFAULT_SHARD_SIZE = "5GB"


@dataclass(frozen=True)
class CheckpointOptions:
    """What is converted, into what, and where the rest of the model comes from."""

    source: str  # a .pth of LAVIS; a directory, hub id or embedded name
    destination: str  # a .pth of LAVIS, or a directory
    overwrite: bool = False
    language_model: str | None = None  # directory or hub id: OPT, Flan-T5; for retrieval BERT
    vision_weights: str | None = None  # eva_vit_g.pth
    like: str | None = None  # a BLIP-2 that gives settings, tokenizer and what else is missing
    dtype: StoredDtype | None = None  # None: as it is stored
    quantize: Literal["int8"] | None = None  # linear layers in eight bits
    max_shard_size: str = DEFAULT_SHARD_SIZE
    check: bool = False
