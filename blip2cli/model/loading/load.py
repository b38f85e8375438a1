"""From a checkpoint to a model that is ready to run.

Weights go straight from the file into place, in the precision of the run, without a second copy of
the model in memory; pickles are read with ``weights_only=True``; no code from a checkpoint is ever
run. Missing weights are an error: transformers warns and goes on with random ones.
"""

from __future__ import annotations

import functools
import math
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from safetensors import SafetensorError
from torch import Tensor, nn

from blip2cli.errors import ModelError, OptionError, option
from blip2cli.model.checkpoint.generation_defaults import unheeded_settings
from blip2cli.model.checkpoint.lazy_weights import Weight, Weights
from blip2cli.model.checkpoint.weight_files import Checkpoint
from blip2cli.model.layers.fused_projections import fuse_projections
from blip2cli.model.layers.linear import Linear
from blip2cli.model.layers.packed_linear import pack_weights
from blip2cli.model.loading.empty_model import empty_model
from blip2cli.model.loading.offload import ConvertedLayers, PlacedLayers
from blip2cli.model.loading.quantized_checkpoints import quantizer_name
from blip2cli.model.loading.shared_vision import VISION
from blip2cli.model.loading.stored import check_weights, stored_weights, unused_remark
from blip2cli.model.loading.too_large import give_back, too_large
from blip2cli.model.nets.blip2 import Blip2Net, GenerationModel
from blip2cli.model.nets.vision import VisionModel
from blip2cli.model.placement.device_map import place_layers
from blip2cli.model.placement.dtype import Placement
from blip2cli.model.placement.single_thread import single_thread
from blip2cli.model.placement.thresholds import SINGLE_THREADED_LOAD_BELOW
from blip2cli.model.quantize.int8_layers import int8_is_faster, use_int8_layers
from blip2cli.model.quantize.int8_weights import is_quantized_layer, quantize
from blip2cli.model.quantize.library_layers import use_library_layers
from blip2cli.options import ModelOptions, Quantize
from blip2cli.system.memory import is_exhaustion

# transformers keeps these in float32 in a float16 model (_keep_in_fp32_modules in
# modeling_blip_2.py).
_KEEP_IN_FLOAT32 = ("query_tokens", "qformer.")
Places = dict[str, tuple[nn.Module, str]]  # of every weight: its module, and its name there

_FLOAT16_MAX = torch.finfo(torch.float16).max


def load_model(
    checkpoint: Checkpoint,
    placement: Placement,
    plain: bool = False,
    options: ModelOptions | None = None,
    vision: VisionModel | None = None,
) -> Blip2Net:
    """Load the weights onto the device, or layers where ``options`` place them.

    Returns a ``GenerationModel`` for families that write, else a ``RetrievalModel``. With ``plain``
    every weight keeps its place and layout, for inspection; else layers are quantized, fused and
    packed as placement and device allow. ``vision`` is the encoder of another model, which takes
    the place of an equal one of its own. What does not fit is loaded in the smaller precision of
    ``placement``. Raises ModelError naming the file or the weights when they are damaged, missing
    or of another shape than config.json says, and for a model that does not fit.
    """
    try:
        return _prepared(checkpoint, placement, plain, options, vision)
    except (MemoryError, OSError, RuntimeError) as error:
        if not is_exhaustion(error):
            raise
    # The exception, whose frames hold tensors, is gone by now.
    give_back(placement.device)
    if placement.smaller is None:
        raise too_large(checkpoint, placement, options)
    halved = replace(placement, dtype=placement.smaller, smaller=None)
    model = load_model(checkpoint, halved, plain, options, vision)
    name = str(halved.dtype).removeprefix("torch.")
    model.placed = f", {name} instead, which takes half the memory" + model.placed
    return model


def _prepared(
    checkpoint: Checkpoint,
    placement: Placement,
    plain: bool,
    options: ModelOptions | None,
    vision: VisionModel | None,
) -> Blip2Net:
    small = checkpoint.weight_bytes < SINGLE_THREADED_LOAD_BELOW
    with single_thread() if small else nullcontext():
        try:
            model, layers = _loaded(checkpoint, placement, plain, options, vision)
        except (ModelError, OptionError, MemoryError):
            raise
        except (OSError, RuntimeError, ValueError, TypeError, KeyError, SafetensorError) as error:
            if is_exhaustion(error):
                raise
            lines = str(error).strip().splitlines() or [type(error).__name__]
            raise ModelError(
                None, f"the model in {checkpoint.path} cannot be loaded ({lines[0]})"
            ) from error
        if not plain and placement.quantizer is None:  # a library's layers stay as they are
            fuse_projections(model)
        if not plain and placement.device.type == "cpu":
            if placement.quantize is not None:
                use_int8_layers(model)
            pack_weights(model)
        elif not plain and placement.quantize is not None:
            _quantize_layers(model, placement.quantize, placement)
        if layers is not None:
            layers.stream(model)
    return model


def _quantize_layers(model: Blip2Net, quantize: Quantize, placement: Placement) -> None:
    """Put quantized layers into their places on CUDA."""
    if placement.quantizer is not None:
        use_library_layers(model, placement.device, placement.quantizer)
        return
    from blip2cli.model.quantize.cuda_layers import use_cuda_layers

    use_cuda_layers(model, quantize)


def _loaded(
    checkpoint: Checkpoint,
    placement: Placement,
    plain: bool,
    options: ModelOptions | None,
    vision: VisionModel | None,
) -> tuple[Blip2Net, PlacedLayers | None]:
    model = empty_model(checkpoint.model_config, str(checkpoint.path))
    if vision is not None:
        model.vision_model = vision
    layers = None
    if options is not None and options.places_layers:
        devices = place_layers(model, options, placement.device, placement.dtype)
        layers = PlacedLayers(
            devices,
            ConvertedLayers(checkpoint, options.offload, placement.dtype),
            functools.partial(_check_finite, checkpoint),
        )
    _fill(checkpoint, model, placement, plain, layers)
    return model.eval().requires_grad_(False), layers


def _fill(
    checkpoint: Checkpoint,
    model: Blip2Net,
    placement: Placement,
    plain: bool,
    layers: PlacedLayers | None,
) -> None:
    """Put every weight in the files into its place, quantized layers as ``placement`` says, and
    matrices of streamed layers nowhere yet.

    Raises ModelError for weights that do not fit the configuration, or that are no numbers.
    """
    stored, remarks = stored_weights(checkpoint, keep_open=True)
    if any(own in stored for _, own in checkpoint.family.separate_words):
        language: Any = model.language_model
        with torch.device("meta"):
            language.separate_words()
    places: Places = {
        f"{path}.{name}" if path else name: (module, name)
        for path, module in model.named_modules()
        for name, weight in module._parameters.items()
        if weight is not None and weight.is_meta  # a shared vision encoder is filled
    }
    if not any(name.startswith(VISION) for name in places):
        stored = {name: each for name, each in stored.items() if not name.startswith(VISION)}
    aliases = dict(checkpoint.family.weight_aliases)
    weights = {aliases.get(name, name): weight for name, weight in stored.items()}
    unused = check_weights(
        str(checkpoint.path),
        weights,
        {name: _empty(*place).shape for name, place in places.items()},
        checkpoint.family,
        _tied(model, places, weights),
        quantizer_name(checkpoint.config),
    )
    if unused:
        remarks.append(unused_remark(unused))
    for name, weight in weights.items():
        if name not in places:
            continue
        module, own = places[name]
        half = placement.dtype is torch.float16
        dtype = torch.float32 if half and name.startswith(_KEEP_IN_FLOAT32) else placement.dtype
        quantizing = placement.quantize is not None and not plain
        if quantizing and isinstance(module, Linear) and _is_quantized(name, weight, placement):
            _fill_quantized(module, weight, placement)
            _check_finite(
                checkpoint, name, module.weight if module.scales is None else module.scales, weight
            )
            continue
        if layers is not None and layers.take(name, module, own, weight.to(dtype)):
            continue
        device = placement.device if layers is None else layers.devices.device(name)
        # A copy: what is mapped from a file changes, or ends the process, when the file does.
        copy = weight.load().to(device, dtype, copy=True)
        if not plain:  # what is inspected may be anything
            _check_finite(checkpoint, name, copy, weight)
        module._parameters[own] = nn.Parameter(copy, requires_grad=False)
    if layers is not None:
        layers.convert()
    if isinstance(model, GenerationModel):
        _tie_embeddings(model)
    if not plain:
        remarks += (*unheeded_settings(checkpoint), *placement.remarks)
    model.remarks = tuple(remarks)


def _tied(model: Blip2Net, places: Places, weights: Weights) -> tuple[str, ...]:
    """The weight that may be missing, because another one takes its place."""
    if not isinstance(model, GenerationModel) or not model.config.text_config.ties_embeddings:
        return ()
    ends = (model.input_embeddings, model.language_model.lm_head)
    names = [name for name, (module, _) in places.items() if module in ends]
    return tuple(names) if any(name in weights for name in names) else ()


def _check_finite(checkpoint: Checkpoint, name: str, copy: Tensor, weight: Weight) -> None:
    """Raise ModelError when a weight on the device has NaN or infinite numbers."""
    if not copy.numel() or bool(copy.sum().isfinite()):  # one pass, without a copy
        return
    low, high = copy.aminmax()
    if bool(low.isfinite()) and bool(high.isfinite()):
        return  # it was the sum that left the range
    largest = weight.load().abs().max().item()
    if _FLOAT16_MAX < largest < math.inf and copy.dtype is torch.float16:
        raise OptionError(
            "dtype",
            f"{option('dtype')} float16 cannot hold {name} of {checkpoint} (up to {largest:.3g})",
            "use bfloat16 or float32",
        )
    raise ModelError(
        None,
        f"{checkpoint} has numbers in {name} that are NaN or infinite",
        "fetch the model again; if it is your own, take a checkpoint from before its training "
        "diverged",
    )


def _is_quantized(name: str, weight: Weight, placement: Placement) -> bool:
    """Whether the weight ``name`` of a linear layer is quantized."""
    layer, _, own = name.rpartition(".")
    if own != "weight" or not is_quantized_layer(layer):
        return False
    if placement.device.type == "cpu":
        return int8_is_faster(layer, placement.dtype)
    if placement.quantizer is not None:
        return not layer.endswith(".wo")  # states are float16 there, which T5's overflow
    from blip2cli.model.quantize.cuda_layers import has_sizes

    return has_sizes(weight.shape)


def _fill_quantized(layer: Linear, weight: Weight, placement: Placement) -> None:
    """Give a layer its weight as it is quantized here, or by a library on the way to the device, so
    that no other copy is ever held whole."""
    if placement.quantizer is not None:
        dtype = placement.quantizer.weight_dtype or placement.dtype
        layer.weight = nn.Parameter(weight.load().to(dtype, copy=True), requires_grad=False)
        return
    if placement.quantize == "fp8":
        from blip2cli.model.quantize.cuda_layers import round_to_fp8

        numbers, scales = round_to_fp8(weight.load().to(placement.device))
    elif weight.quantized is not None:
        stored = weight.quantized()
        numbers, scales = stored.numbers.clone(), stored.scales.clone()
    else:
        numbers, scales = quantize(weight.load())
    layer.weight = nn.Parameter(numbers.to(placement.device), requires_grad=False)
    layer.scales = scales.to(placement.device)


def _empty(module: nn.Module, own: str) -> nn.Parameter:
    weight = module._parameters[own]
    assert weight is not None
    return weight


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
