"""Conversions of checkpoints: LAVIS ⇄ transformers, other precisions, other shards."""

from blip2cli.convert.checkpoints.run import ConvertedCheckpoint, convert_checkpoint
from blip2cli.options import CheckpointOptions

__all__ = ["CheckpointOptions", "ConvertedCheckpoint", "convert_checkpoint"]
