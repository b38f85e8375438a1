"""From a checkpoint directory to a model that is ready to run.

Weights go straight from the file into place, in the wanted precision, without a second copy of the
model in memory; pickles are read with ``weights_only=True``; no code from a checkpoint is ever run.
Weights that are missing are an error: transformers warns and goes on with random ones.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from blip2cli.errors import ModelError
from blip2cli.model.checkpoint.config import Blip2Config, read_config
from blip2cli.model.checkpoint.directory import Checkpoint
from blip2cli.model.layers.linear import ACTIVATIONS, Linear, fuse_projections, pack_weights
from blip2cli.model.nets.blip2 import Blip2Net, GenerationModel, build
from blip2cli.model.placement.dtype import Placement
from blip2cli.model.placement.single_thread import single_thread
from blip2cli.model.quantize import libraries as quantizers
from blip2cli.model.quantize.int8 import (
    QuantizedWeight,
    is_int8,
    is_quantized_layer,
    quantize,
    read_int8_weights,
)
from blip2cli.model.quantize.linear_int8 import int8_is_faster, replace_linear_layers

# In float16 transformers keeps these in float32 (_keep_in_fp32_modules in modeling_blip_2.py).
_WIDE = ("query_tokens", "qformer.")


def load_model(checkpoint: Checkpoint, placement: Placement, plain: bool = False) -> Blip2Net:
    """Load the weights onto the device.

    Returns a ``GenerationModel`` for families that write, else a ``RetrievalModel``. With ``plain``
    every weight stays what and where it is in the file, for others to look at; else layers are
    joined and packed where that is quicker. Raises ModelError naming the file or the weights when
    they are damaged, missing or of another shape than the configuration says.
    """
    if checkpoint.safetensors:
        for file in checkpoint.weights:
            check_safetensors(file)
    config = read_config(checkpoint.config, checkpoint.family)
    small = checkpoint.weight_bytes < SMALL_WEIGHTS
    with single_thread() if small else nullcontext():
        return _load(checkpoint, config, placement, plain)


# Below so many bytes of weights threads that work together only wait for one another.
SMALL_WEIGHTS = 64 << 20


def _load(
    checkpoint: Checkpoint, config: Blip2Config, placement: Placement, plain: bool
) -> Blip2Net:
    try:
        with torch.device("meta"):
            model = build(config)
        _check_activations(checkpoint, model)
        _fill(checkpoint, model, placement, rounding=placement.quantize is not None and not plain)
    except (ModelError, MemoryError, torch.OutOfMemoryError):
        raise
    except (OSError, RuntimeError, ValueError, TypeError, KeyError, EOFError) as error:
        raise ModelError(_explain(checkpoint, error)) from error
    except Exception as error:
        # Unpickling errors have no common root.
        if type(error).__module__.partition(".")[0] not in _KNOWN_RAISERS:
            raise
        raise ModelError(_explain(checkpoint, error)) from error
    model.eval()
    model.requires_grad_(False)
    if not plain and placement.device.type == "cpu":
        fuse_projections(model)
        if placement.quantize is not None:
            replace_linear_layers(model)
        pack_weights(model)
    elif not plain and placement.quantize is not None:
        quantizers.replace_linear_layers(model, placement.device, _quantizer(placement))
    return model


def _quantizer(placement: Placement) -> quantizers.Quantizer:
    assert placement.quantize is not None
    quantizer = quantizers.installed_quantizer(placement.quantize)
    assert quantizer is not None, "``place`` sees to it"
    return quantizer


_KNOWN_RAISERS = frozenset({"_pickle", "pickle", "safetensors_rust", "zipfile"})


def _check_activations(checkpoint: Checkpoint, model: nn.Module) -> None:
    for layer in model.modules():
        if isinstance(layer, Linear) and layer.activation and layer.activation not in ACTIVATIONS:
            raise ModelError(
                f"{checkpoint.path} uses the activation {layer.activation}, which BLIP-2 models do "
                f"not have; config.json must name one of {', '.join(ACTIVATIONS)}."
            )


def _fill(
    checkpoint: Checkpoint,
    model: Blip2Net,
    placement: Placement,
    rounding: bool,
) -> None:
    """Put every weight in the files into its place; ``rounding``: in eight bits, those that are to.

    Raises ModelError.
    """
    places = {
        f"{path}.{name}" if path else name: (module, name)
        for path, module in model.named_modules()
        for name, weight in module._parameters.items()
        if weight is not None
    }
    aliases = dict(checkpoint.family.weight_aliases)
    odd = []
    for name, weight in _stored(checkpoint):
        where = aliases.get(name, name)
        if where not in places:
            continue
        module, own = places[where]
        wanted = module._parameters[own]
        assert wanted is not None
        if wanted.shape != weight.shape:
            odd.append(name)
            continue
        half = placement.dtype is torch.float16
        dtype = torch.float32 if half and name.startswith(_WIDE) else placement.dtype
        if rounding and _is_rounded(module, where, placement):
            _round(module, weight, placement)
            continue
        if isinstance(weight, QuantizedWeight):
            weight = weight.exact(dtype)
        # A copy: what is mapped from a file changes, or ends the process, when the file does.
        held = weight.to(placement.device, dtype, copy=True)
        module._parameters[own] = nn.Parameter(held, requires_grad=False)
    if odd:
        raise ModelError(
            f"{checkpoint.path} has {len(odd)} weights of another shape than its "
            f"config.json says ({_some(sorted(odd))}); take config.json and weights from one model."
        )
    if isinstance(model, GenerationModel):
        _tie(model)
    missing = sorted(name for name, (module, own) in places.items() if _lacks(module, own))
    if missing:
        raise ModelError(
            f"{checkpoint.path} lacks {len(missing)} of the model's weights "
            f"({_some(missing)}); they would be random, so fetch or save the model again."
        )


def _is_rounded(module: nn.Module, name: str, placement: Placement) -> bool:
    layer, _, own = name.rpartition(".")
    if placement.device.type == "cpu":
        if not int8_is_faster(layer, placement.dtype):
            return False
    elif layer.endswith(".wo"):
        return False  # there the states are float16, which T5's overflow at this layer
    return own == "weight" and isinstance(module, Linear) and is_quantized_layer(layer)


def _round(layer: Linear, weight: Tensor | QuantizedWeight, placement: Placement) -> None:
    """Give a linear layer its weight as it is rounded, or will be on its way to the device, so
    that no other copy is ever held whole."""
    if placement.device.type != "cpu":  # rounded on its way there, by another library
        dtype = _quantizer(placement).wanted or placement.dtype
        held = (
            weight.exact(dtype)
            if isinstance(weight, QuantizedWeight)
            else weight.to(dtype, copy=True)
        )
        layer.weight = nn.Parameter(held, requires_grad=False)
        return
    if isinstance(weight, QuantizedWeight):
        numbers, scales = weight.numbers.clone(), weight.scales.clone()
    else:
        numbers, scales = quantize(weight)
    layer.weight = nn.Parameter(numbers, requires_grad=False)
    layer.scales = scales


def _lacks(module: nn.Module, name: str) -> bool:
    weight = module._parameters[name]
    return weight is not None and weight.is_meta


def _stored(checkpoint: Checkpoint) -> Iterator[tuple[str, Tensor | QuantizedWeight]]:
    """Every weight in the files with its name."""
    if is_int8(checkpoint.config):
        yield from read_int8_weights(checkpoint.weights)
        return
    for file in checkpoint.weights:
        if checkpoint.safetensors:
            from safetensors import safe_open

            with safe_open(file, "pt") as opened:
                for name in opened.keys():  # noqa: SIM118 - it is no dictionary
                    yield name, opened.get_tensor(name)
            continue
        held = torch.load(file, map_location="cpu", mmap=True, weights_only=True)
        for name, weight in held.items():
            if isinstance(weight, Tensor):
                yield name, weight


def _tie(model: GenerationModel) -> None:
    """One matrix reads and writes where the files hold one, or two that are the same."""
    words, head = model.input_embeddings, model.language_model.lm_head
    if head.weight.is_meta:
        head.weight = words.weight
    elif words.weight.is_meta:
        words.weight = head.weight
    elif torch.equal(head.weight, words.weight):
        head.weight = words.weight


def check_safetensors(file: Path) -> None:
    """Check a safetensors file's length against its header.

    The header is a little-endian 64-bit length, then JSON that gives each tensor's byte range
    (https://github.com/huggingface/safetensors#format). Raises ModelError naming the file: a
    download cut short is the usual case, and only the header tells.
    """
    damaged = f"{file} is damaged or cut short; delete it and fetch it again."
    size = file.stat().st_size
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
        if size < 8 or length > size - 8:
            raise ModelError(damaged)
        try:
            header: dict[str, Any] = json.loads(stream.read(length))
            spans = [v["data_offsets"] for k, v in header.items() if k != "__metadata__"]
            end = max((span[1] for span in spans), default=0)
        except (ValueError, TypeError, KeyError, AttributeError, IndexError) as error:
            raise ModelError(damaged) from error
    if size != 8 + length + end:
        raise ModelError(damaged)


def _explain(checkpoint: Checkpoint, error: Exception) -> str:
    lines = str(error).strip().splitlines()
    said = lines[0] if lines else type(error).__name__
    if "size mismatch" in str(error) or "ignore_mismatched_sizes" in str(error):
        return (
            f"the weights in {checkpoint.path} have other shapes than its config.json says; "
            "take both from one model."
        )
    if not checkpoint.safetensors:
        names = ", ".join(file.name for file in checkpoint.weights)
        return (
            f"the pickled weights in {checkpoint.path} ({names}) are damaged or hold more than "
            f"tensors, and are not loaded ({said}); use a safetensors copy of the model."
        )
    return f"the model in {checkpoint.path} cannot be loaded ({said})."


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:3])
    return shown if len(names) <= 3 else f"{shown}, …"
