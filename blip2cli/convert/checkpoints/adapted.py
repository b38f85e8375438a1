"""What is written of a model into which adapters are merged: its precisions and its settings."""

from __future__ import annotations

from dataclasses import replace

import torch

from blip2cli.convert.checkpoints import huggingface as hf
from blip2cli.convert.checkpoints.released import Settings
from blip2cli.model.checkpoint.lazy_weights import Weights
from blip2cli.model.checkpoint.weight_files import Checkpoint


def stored_dtypes(checkpoint: Checkpoint, weights: Weights) -> dict[str, torch.dtype]:
    """The precision of each of ``weights`` in the files, without the adapters."""
    stored = hf.read_model(replace(checkpoint, adapters=()))
    usual = hf.common_dtype(stored)
    return {name: stored[name].dtype if name in stored else usual for name in weights}


def adapted_config(checkpoint: Checkpoint, weights: Weights) -> Settings:
    """The configuration for the merged weights.

    Where an adapter changed one of two layers that share a matrix, there are two matrices now.
    Raises ModelError where transformers has no place for the second.
    """
    _, tied = hf.expected_weights(checkpoint.config, checkpoint.family)
    separate = [name for name, other in tied.items() if name in weights and other in weights]
    if separate and not checkpoint.family.tied_embeddings:
        raise hf.second_embedding(checkpoint)
    if not separate:
        return checkpoint.config
    text = {**checkpoint.config.get("text_config", {}), "tie_word_embeddings": False}
    return {**checkpoint.config, "text_config": text, "tie_word_embeddings": False}
