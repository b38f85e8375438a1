"""Converts a checkpoint: ``convert_checkpoint``.

Weights are read when they are written, one at a time, so memory holds one of them, whatever the
size of the model.
"""

from __future__ import annotations

import os
import time
from dataclasses import dataclass, field
from functools import partial

import torch

from blip2cli.convert.checkpoints import huggingface as hf
from blip2cli.convert.checkpoints.adapted import adapted_config, stored_dtypes
from blip2cli.convert.checkpoints.from_lavis import Assembled, assemble
from blip2cli.convert.checkpoints.lavis_file import lavis_weights, write_lavis
from blip2cli.convert.checkpoints.output import (
    check_destination,
    check_space,
    new_lavis_file,
    new_model,
)
from blip2cli.convert.checkpoints.quantize import quantize_weights
from blip2cli.convert.checkpoints.shards import cast, parse_size, write_shards
from blip2cli.convert.format_table import format_by_suffix
from blip2cli.errors import OptionError, OutputError, SourceError, option
from blip2cli.model.checkpoint.lazy_weights import Progress
from blip2cli.model.checkpoint.model_types import MODEL_TYPES
from blip2cli.model.checkpoint.resolve import resolve
from blip2cli.model.quantize.int8_weights import METHOD, STEM
from blip2cli.options import CheckpointOptions

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
    start = time.monotonic()
    parse_size(options.max_shard_size)
    to_lavis = options.destination.lower().endswith(LAVIS_SUFFIXES)
    from_lavis = os.path.isfile(options.source)
    _check(options, from_lavis, to_lavis)
    check_destination(options.destination, options.overwrite, folder=not to_lavis)
    done = _to_lavis(options) if to_lavis else _to_transformers(options, from_lavis, progress)
    if options.check:
        from blip2cli.convert.checkpoints import compare

        if from_lavis:
            differences = compare.compare_lavis_to_transformers
        elif to_lavis:
            differences = compare.compare_transformers_to_lavis
        else:
            differences = partial(compare.compare_transformers, adapters=options.adapter)
        done.notes += differences(options.source, options.destination)
    done.seconds = time.monotonic() - start
    return done


def _to_transformers(
    options: CheckpointOptions, from_lavis: bool, progress: Progress
) -> ConvertedCheckpoint:
    made = assemble(options) if from_lavis else _transformers_model(options)
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
    if dtype is None:  # merged weights are in float32 so far
        weights = {
            name: weight.to(made.dtypes.get(name, weight.dtype)) for name, weight in weights.items()
        }
    size = sum(weight.nbytes for weight in weights.values())
    check_space(options.destination, size)
    with new_model(options.destination) as folder:
        made.write_small_files(folder)
        hf.write_config(config, folder, dtype)
        stem = "model" if options.quantize is None else STEM
        write_shards(weights, folder, parse_size(options.max_shard_size), progress, stem)
    return ConvertedCheckpoint(len(weights), size, 0.0, made.notes)


def _transformers_model(options: CheckpointOptions) -> Assembled:
    """The source, in transformers' layout already."""
    checkpoint = resolve(options.source, adapters=options.adapter)
    copy = partial(hf.copy_small_files, checkpoint.path)
    notes = [f"Merged {adapter}." for adapter in checkpoint.adapters]
    weights = hf.read_model(checkpoint, notes)
    made = Assembled(checkpoint.family, checkpoint.config, weights, copy, notes)
    if checkpoint.adapters:
        made.config = adapted_config(checkpoint, weights)
        made.dtypes = stored_dtypes(checkpoint, weights)
    return made


def _to_lavis(options: CheckpointOptions) -> ConvertedCheckpoint:
    model = _transformers_model(options)
    if model.dtypes:  # an adapter in the place of a model
        problem = f"{options.source!r} is an adapter, and LAVIS's files hold no language model"
        raise SourceError("sources", problem, "name a directory to merge it into")
    qformer = model.config.get("qformer_config") or {}
    positions = qformer.get("max_position_embeddings", 512)
    model_type = MODEL_TYPES[model.config["model_type"]]
    made = lavis_weights(model.weights, model.kind, positions, model_type)
    size = sum(weight.nbytes for weight in made.weights.values())
    check_space(options.destination, size)
    notes = model.notes
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


def _check(options: CheckpointOptions, from_lavis: bool, to_lavis: bool) -> None:
    """Raise UserError for what does not go together."""
    out = options.destination
    remedy = "name a directory for a model of transformers, or a .pth file for LAVIS"
    if format_by_suffix(out) is not None:
        raise OutputError("destination", f"{out!r} is a name for results", remedy)
    if out.lower().endswith((".safetensors", ".bin")):
        problem = f"{out!r} would be weights without configuration and tokenizer"
        raise OutputError("destination", problem, remedy)
    source = options.source
    name = source.lower()
    if not from_lavis and name.endswith((*LAVIS_SUFFIXES, ".bin", ".safetensors")):
        raise SourceError("sources", f"There is no file or folder {source!r}", "check the path")
    beside = os.path.join(os.path.dirname(source), "config.json")
    is_bin = name.endswith(".bin") and os.path.isfile(beside)  # one of transformers
    if from_lavis and (name.endswith(".safetensors") or is_bin):
        problem = f"{source!r} is only the weights of a model"
        raise SourceError("sources", problem, "name the directory it lies in")
    if from_lavis and to_lavis:
        problem = f"{source!r} is a file of LAVIS already"
        raise OutputError("destination", problem, "name a directory")
    added = {
        "language_model": options.language_model,
        "qformer_tokenizer": options.qformer_tokenizer,
        "vision_weights": options.vision_weights,
        "like": options.like,
    }
    for field_name, value in added.items():
        if value is not None and not from_lavis:
            problem = f"{option(field_name)} is for a .pth file of LAVIS"
            raise OptionError(field_name, problem, f"{source!r} is whole")
    if options.adapter and (from_lavis or to_lavis):
        problem = f"{option('adapter')} is for models of transformers"
        raise OptionError("adapter", problem, "convert in two steps, by way of a directory")
    if options.vision_weights is not None and not os.path.isfile(options.vision_weights):
        problem = f"There is no file {options.vision_weights!r} for {option('vision_weights')}"
        raise OptionError("vision_weights", problem)
    if to_lavis and (options.dtype != "auto" or options.quantize):
        field_name = "dtype" if options.dtype != "auto" else "quantize"
        problem = f"{option(field_name)} is for models of transformers"
        raise OptionError(field_name, problem, "LAVIS casts what it reads")
    named = (source, *added.values(), *options.adapter)
    read = [path for path in named if path and os.path.exists(path)]
    if os.path.exists(out) and any(os.path.samefile(path, out) for path in read):
        problem = f"{out!r} is read for the conversion"
        raise OutputError("destination", problem, "choose another name")
