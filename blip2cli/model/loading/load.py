"""From a checkpoint to a model that is ready to run.

Weights go straight from the file into place, in the precision of the run, without a second copy of
the model in memory; pickles are read with ``weights_only=True``; no code from a checkpoint is ever
run. Missing weights are an error: transformers warns and goes on with random ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext

import torch
from torch import Tensor, nn

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.directory import Checkpoint
from blip2cli.model.checkpoint.safetensors_file import open_safetensors
from blip2cli.model.layers.fused_projections import fuse_projections
from blip2cli.model.layers.linear import ACTIVATIONS, Linear
from blip2cli.model.layers.packed_linear import pack_weights
from blip2cli.model.nets.blip2 import Blip2Net, GenerationModel, build
from blip2cli.model.placement.dtype import Placement
from blip2cli.model.placement.single_thread import single_thread
from blip2cli.model.placement.thresholds import SINGLE_THREADED_LOAD_BELOW
from blip2cli.model.quantize.int8 import (
    QuantizedWeight,
    is_int8,
    is_quantized_layer,
    quantize,
    read_int8_weights,
)
from blip2cli.model.quantize.libraries import Quantizer, installed_quantizer, use_library_layers
from blip2cli.model.quantize.linear_int8 import int8_is_faster, use_int8_layers

# transformers keeps these in float32 in a float16 model (_keep_in_fp32_modules in
# modeling_blip_2.py).
_KEEP_IN_FLOAT32 = ("query_tokens", "qformer.")
# Packages whose errors while reading weights mean a bad file; they have no common base class.
_FILE_ERRORS = frozenset({"_pickle", "pickle", "safetensors_rust", "zipfile"})


def load_model(checkpoint: Checkpoint, placement: Placement, plain: bool = False) -> Blip2Net:
    """Load the weights onto the device.

    Returns a ``GenerationModel`` for families that write, else a ``RetrievalModel``. With ``plain``
    every weight keeps its place and layout, for inspection; else layers are quantized, fused and
    packed as placement and device allow. Raises ModelError naming the file or the weights when they
    are damaged, missing or of another shape than config.json says.
    """
    small = checkpoint.weight_bytes < SINGLE_THREADED_LOAD_BELOW
    with single_thread() if small else nullcontext():
        try:
            model = _loaded(checkpoint, placement, placement.quantize is not None and not plain)
        except (ModelError, MemoryError, torch.OutOfMemoryError):
            raise
        except (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError) as error:
            raise _unloadable(checkpoint, error) from error
        except Exception as error:
            if type(error).__module__.partition(".")[0] not in _FILE_ERRORS:
                raise
            raise _unloadable(checkpoint, error) from error
        if not plain and placement.device.type == "cpu":
            fuse_projections(model)
            if placement.quantize is not None:
                use_int8_layers(model)
            pack_weights(model)
        elif not plain and placement.quantize is not None:
            use_library_layers(model, placement.device, _quantizer(placement))
    return model


def _loaded(checkpoint: Checkpoint, placement: Placement, quantizing: bool) -> Blip2Net:
    with torch.device("meta"):
        model = build(checkpoint.model_config)
    _check_activations(checkpoint, model)
    _fill(checkpoint, model, placement, quantizing)
    return model.eval().requires_grad_(False)


def _quantizer(placement: Placement) -> Quantizer:
    assert placement.quantize is not None
    quantizer = installed_quantizer(placement.quantize)
    assert quantizer is not None, "``place`` checks it"
    return quantizer


def _check_activations(checkpoint: Checkpoint, model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, Linear) and layer.activation and layer.activation not in ACTIVATIONS:
            raise ModelError(
                None,
                f"{checkpoint.path} uses the activation {layer.activation}, which BLIP-2 models do "
                "not have",
                f"config.json must name one of {', '.join(ACTIVATIONS)}",
            )


def _fill(checkpoint: Checkpoint, model: Blip2Net, placement: Placement, quantizing: bool) -> None:
    """Put every weight in the files into its place, quantized layers as ``placement`` says.

    Raises ModelError for weights that are missing or of another shape.
    """
    places = {
        f"{path}.{name}" if path else name: (module, name)
        for path, module in model.named_modules()
        for name, weight in module._parameters.items()
        if weight is not None
    }
    aliases = dict(checkpoint.family.weight_aliases)
    misshapen = []
    for name, weight in _stored_weights(checkpoint):
        where = aliases.get(name, name)
        if where not in places:
            continue
        module, own = places[where]
        empty = module._parameters[own]
        assert empty is not None
        if empty.shape != weight.shape:
            misshapen.append(name)
            continue
        half = placement.dtype is torch.float16
        dtype = torch.float32 if half and name.startswith(_KEEP_IN_FLOAT32) else placement.dtype
        if quantizing and isinstance(module, Linear) and _is_quantized(where, placement):
            _fill_quantized(module, weight, placement)
            continue
        if isinstance(weight, QuantizedWeight):
            weight = weight.dequantized(dtype)
        # A copy: what is mapped from a file changes, or ends the process, when the file does.
        copy = weight.to(placement.device, dtype, copy=True)
        module._parameters[own] = nn.Parameter(copy, requires_grad=False)
    if misshapen:
        raise ModelError(
            None,
            f"{checkpoint.path} has {len(misshapen)} weights of another shape than its "
            f"config.json says ({_some(sorted(misshapen))})",
            "take config.json and weights from one model",
        )
    if isinstance(model, GenerationModel):
        _tie_embeddings(model)
    missing = sorted(name for name, (module, own) in places.items() if _is_empty(module, own))
    if missing:
        raise ModelError(
            None,
            f"{checkpoint.path} lacks {len(missing)} of the model's weights ({_some(missing)})",
            "they would be random, so fetch or save the model again",
        )


def _is_quantized(name: str, placement: Placement) -> bool:
    """Whether the weight ``name`` of a linear layer is quantized."""
    layer, _, own = name.rpartition(".")
    if placement.device.type == "cpu":
        if not int8_is_faster(layer, placement.dtype):
            return False
    elif layer.endswith(".wo"):
        return False  # there the states are float16, which T5's overflow at this layer
    return own == "weight" and is_quantized_layer(layer)


def _fill_quantized(layer: Linear, weight: Tensor | QuantizedWeight, placement: Placement) -> None:
    """Give a layer its weight as it is quantized here, or by a library on the way to the device, so
    that no other copy is ever held whole."""
    if placement.device.type != "cpu":
        dtype = _quantizer(placement).weight_dtype or placement.dtype
        if isinstance(weight, QuantizedWeight):
            held = weight.dequantized(dtype)
        else:
            held = weight.to(dtype, copy=True)
        layer.weight = nn.Parameter(held, requires_grad=False)
        return
    if isinstance(weight, QuantizedWeight):
        numbers, scales = weight.numbers.clone(), weight.scales.clone()
    else:
        numbers, scales = quantize(weight)
    layer.weight = nn.Parameter(numbers, requires_grad=False)
    layer.scales = scales


def _is_empty(module: nn.Module, name: str) -> bool:
    weight = module._parameters[name]
    return weight is not None and weight.is_meta


def _stored_weights(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor | QuantizedWeight]]:
    """Every weight in the files with its name."""
    if is_int8(checkpoint.config):
        yield from read_int8_weights(checkpoint.weights)
        return
    for file in checkpoint.weights:
        if checkpoint.safetensors:
            with open_safetensors(file) as opened:
                for name in opened.keys():  # noqa: SIM118 - it is no dictionary
                    yield name, opened.get_tensor(name)
            continue
        pickled = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        for name, weight in pickled.items():
            if isinstance(weight, Tensor):
                yield name, weight


def _tie_embeddings(model: GenerationModel) -> None:
    """Share one matrix between input embedding and head where the files hold one, or two equal
    ones."""
    words, head = model.input_embeddings, model.language_model.lm_head
    if head.weight.is_meta:
        head.weight = words.weight
    elif words.weight.is_meta:
        words.weight = head.weight
    elif torch.equal(head.weight, words.weight):
        head.weight = words.weight


def _unloadable(checkpoint: Checkpoint, error: Exception) -> ModelError:
    lines = str(error).strip().splitlines()
    reason = lines[0] if lines else type(error).__name__
    if not checkpoint.safetensors:
        names = ", ".join(file.name for file in checkpoint.weights)
        return ModelError(
            None,
            f"the pickled weights in {checkpoint.path} ({names}) are damaged or hold more than "
            f"tensors, and are not loaded ({reason})",
            "use a safetensors copy of the model",
        )
    return ModelError(None, f"the model in {checkpoint.path} cannot be loaded ({reason})")


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown}, …"
