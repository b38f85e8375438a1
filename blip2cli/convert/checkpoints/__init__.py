"""Checkpoints into other layouts: LAVIS ⇄ transformers, other precisions, other shards.

Weights are read when they are written, one at a time, so memory holds one of them, whatever the
size of the model.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from blip2cli.convert.table import format_by_suffix
from blip2cli.errors import OptionError, OutputError, SourceError
from blip2cli.options import CheckpointOptions

if TYPE_CHECKING:
    from blip2cli.convert.checkpoints.from_lavis import Assembled

__all__ = ["CheckpointOptions", "ConvertedCheckpoint", "convert_checkpoint"]

Progress = Callable[[int, int], None]  # bytes written so far, bytes in all
LAVIS_SUFFIXES = (".pth", ".pt", ".ckpt")


@dataclass
class ConvertedCheckpoint:
    """What a conversion did."""

    weights: int
    bytes: int
    seconds: float
    notes: list[str] = field(default_factory=list)


def convert_checkpoint(
    options: CheckpointOptions, progress: Progress = lambda done, total: None
) -> ConvertedCheckpoint:
    """Convert the checkpoint ``options.source`` into ``options.destination``.

    The output appears complete or not at all. Raises UserError for what is wrong with the options
    or the files, RunError when the disk is full or failing.
    """
    from blip2cli.convert.checkpoints.output import check_destination
    from blip2cli.convert.checkpoints.shards import parse_size

    began = time.monotonic()
    parse_size(options.max_shard_size)
    to_lavis = options.destination.lower().endswith(LAVIS_SUFFIXES)
    from_lavis = os.path.isfile(options.source)
    _check(options, from_lavis, to_lavis)
    check_destination(options.destination, options.overwrite, folder=not to_lavis)
    done = _to_lavis(options) if to_lavis else _to_transformers(options, from_lavis, progress)
    if options.check:
        done.notes += _checked(options, from_lavis, to_lavis)
    done.seconds = time.monotonic() - began
    return done


def _to_transformers(
    options: CheckpointOptions, from_lavis: bool, progress: Progress
) -> ConvertedCheckpoint:
    import torch

    from blip2cli.convert.checkpoints import huggingface as hf
    from blip2cli.convert.checkpoints.from_lavis import assemble
    from blip2cli.convert.checkpoints.output import check_space, new_model
    from blip2cli.convert.checkpoints.quantize import quantize_weights
    from blip2cli.convert.checkpoints.shards import cast, parse_size, write_shards
    from blip2cli.model.quantize.int8 import METHOD, STEM

    made = assemble(options) if from_lavis else _whole(options)
    weights = made.weights
    dtype = None
    if options.dtype != "auto":
        made.kind.check_dtype(options.dtype)
        dtype = getattr(torch, options.dtype)
        weights = cast(weights, dtype)
    config = {name: part for name, part in made.config.items() if name != "quantization_config"}
    if options.quantize is not None:
        modules = hf.meta_model(config, made.kind).named_modules()
        layers = [name for name, module in modules if isinstance(module, torch.nn.Linear)]
        weights = quantize_weights(weights, layers)
        config["quantization_config"] = {"quant_method": METHOD}
    size = sum(weight.nbytes for weight in weights.values())
    check_space(options.destination, size)
    with new_model(options.destination) as folder:
        made.write_small_files(folder)
        hf.write_config(config, folder, dtype)
        stem = "model" if options.quantize is None else STEM
        write_shards(weights, folder, parse_size(options.max_shard_size), progress, stem)
    return ConvertedCheckpoint(len(weights), size, 0.0, made.notes)


def _whole(options: CheckpointOptions) -> Assembled:
    """A model that is in transformers' layout already."""
    from blip2cli.convert.checkpoints import huggingface as hf
    from blip2cli.convert.checkpoints.from_lavis import Assembled
    from blip2cli.model.checkpoint.resolve import resolve

    checkpoint = resolve(options.source)
    return Assembled(
        checkpoint.family,
        checkpoint.config,
        hf.read_model(checkpoint),
        lambda folder: hf.copy_small_files(checkpoint.path, folder),
    )


def _to_lavis(options: CheckpointOptions) -> ConvertedCheckpoint:
    from blip2cli.convert.checkpoints.lavis import lavis_weights, write_lavis
    from blip2cli.convert.checkpoints.output import check_space, new_lavis_file

    model = _whole(options)
    qformer = model.config.get("qformer_config") or {}
    made = lavis_weights(model.weights, model.kind, qformer.get("max_position_embeddings", 512))
    size = sum(weight.nbytes for weight in made.weights.values())
    check_space(options.destination, size)
    notes = []
    if made.language_model:
        notes.append("The language model was left out, as LAVIS does, which reads its own.")
    if made.biased_keys:
        notes.append(
            f"In {made.biased_keys} layers the keys have a bias, which LAVIS has no place for and "
            "which no output depends on; it was left out."
        )
    with new_lavis_file(options.destination) as file:
        write_lavis(made.weights, file)
    return ConvertedCheckpoint(len(made.weights), size, 0.0, notes)


def _is_part(source: str) -> bool:
    return source.lower().endswith(".bin") and os.path.isfile(
        os.path.join(os.path.dirname(source), "config.json")
    )


def _checked(options: CheckpointOptions, from_lavis: bool, to_lavis: bool) -> list[str]:
    """How the result differs from the source."""
    from blip2cli.convert.checkpoints import compare

    if from_lavis:
        return compare.compare_lavis_to_transformers(options.source, options.destination)
    if to_lavis:
        return compare.compare_transformers_to_lavis(options.source, options.destination)
    return compare.compare_transformers(options.source, options.destination)


def _check(options: CheckpointOptions, from_lavis: bool, to_lavis: bool) -> None:
    """Raise UserError for what does not go together."""
    out = options.destination
    if format_by_suffix(out) is not None:
        raise OutputError(
            f"{out!r} is a name for results; name a directory for a model of transformers, or a "
            ".pth file for LAVIS."
        )
    if out.lower().endswith((".safetensors", ".bin")):
        raise OutputError(
            f"{out!r} would be weights without configuration and tokenizer; name a directory for a "
            "model of transformers, or a .pth file for LAVIS."
        )
    name = options.source.lower()
    if not from_lavis and name.endswith((*LAVIS_SUFFIXES, ".bin", ".safetensors")):
        raise SourceError(f"There is no file or folder {options.source!r}; check the path.")
    if from_lavis and (name.endswith(".safetensors") or _is_part(options.source)):
        raise SourceError(
            f"{options.source!r} is the weights of a model alone; name the directory it lies in."
        )
    if from_lavis and to_lavis:
        raise OutputError(f"{options.source!r} is a file of LAVIS already; name a directory.")
    added = {
        "--language-model": options.language_model,
        "--vision-weights": options.vision_weights,
        "--like": options.like,
    }
    for name, value in added.items():
        if value is not None and not from_lavis:
            raise OptionError(f"{name} is for a .pth file of LAVIS; {options.source!r} is whole.")
    if options.vision_weights is not None and not os.path.isfile(options.vision_weights):
        raise OptionError(f"There is no file {options.vision_weights!r} for --vision-weights.")
    if to_lavis and (options.dtype != "auto" or options.quantize):
        name = "--dtype" if options.dtype != "auto" else "--quantize"
        raise OptionError(f"{name} is for models of transformers; LAVIS casts what it reads.")
    read = [path for path in (options.source, *added.values()) if path and os.path.exists(path)]
    if os.path.exists(out) and any(os.path.samefile(path, out) for path in read):
        raise OutputError(f"{out!r} is read for the conversion; choose another name.")
