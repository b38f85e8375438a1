"""Checkpoints as other tools store them, made of a plain one.

Each function takes the weights of a model and gives back what the tool would store, and the
numbers that it stands for. The formats are those of bitsandbytes (``functional.py``,
``nn/modules.py``) and of compressed-tensors and finegrained FP8 in transformers.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Held = dict[str, Tensor]
Quantize = Callable[[str, Tensor], tuple[Held, Tensor]]

# The sixteen values of NF4 (arXiv 2305.14314, appendix E).
NF4 = torch.tensor(
    [-1.0, -0.6961928, -0.52507305, -0.3949175, -0.28444138, -0.18477343, -0.09105004, 0.0,
     0.0795803, 0.1609302, 0.2461123, 0.33791524, 0.44070983, 0.562617, 0.72295684, 1.0]
)  # fmt: skip


def rewritten(source: Path, directory: Path, change: Callable[[Held], Held | None]) -> Path:
    """A copy of a model whose weights are changed: in place, or for those that are returned."""
    shutil.copytree(source, directory)
    held = load_file(directory / "model.safetensors")
    changed = change(held)
    save_file(
        held if changed is None else changed,
        directory / "model.safetensors",
        metadata={"format": "pt"},
    )
    return directory


def configured(directory: Path, change: Callable[[dict[str, Any]], object]) -> Path:
    """The same directory with another ``config.json``."""
    file = directory / "config.json"
    config = json.loads(file.read_text())
    change(config)
    file.write_text(json.dumps(config))
    return directory


def is_linear(name: str, weight: Tensor) -> bool:
    """Whether a weight is one that quantizers change: a matrix, but of embeddings and heads."""
    inner = name.startswith(("vision_model.encoder.", "language_model.", "language_projection"))
    return inner and weight.dim() == 2 and "embed" not in name and "shared" not in name


def quantized(
    source: Path, directory: Path, how: Quantize, settings: dict[str, Any] | None = None
) -> tuple[Path, Held]:
    """A model whose linear layers are stored by ``how``, and the numbers they stand for."""
    exact: Held = {}

    def change(held: Held) -> Held:
        made: Held = {}
        for name, weight in held.items():
            if is_linear(name, weight):
                stored, exact[name] = how(name, weight)
                made |= stored
            else:
                made[name] = exact[name] = weight
        return made

    rewritten(source, directory, change)
    if settings is not None:
        configured(directory, lambda config: config.update(quantization_config=settings))
    return directory, exact


def llm_int8(name: str, weight: Tensor) -> tuple[Held, Tensor]:
    """bitsandbytes, ``load_in_8bit``."""
    largest = weight.abs().amax(1)
    numbers = (weight / largest[:, None] * 127).round().to(torch.int8)
    layer = name.removesuffix("weight")
    format_ = torch.tensor(0, dtype=torch.uint8)  # row by row
    stored = {name: numbers, f"{layer}SCB": largest, f"{layer}weight_format": format_}
    return stored, numbers * (largest / 127)[:, None]


def four_bits(
    name: str, weight: Tensor, nested: bool = False, storage: torch.dtype = torch.uint8
) -> tuple[Held, Tensor]:
    """bitsandbytes, ``load_in_4bit`` with NF4 in blocks of 64; ``nested`` quantizes the scales."""
    flat = weight.flatten()
    blocks = torch.nn.functional.pad(flat, (0, -len(flat) % 64)).reshape(-1, 64)
    largest = blocks.abs().amax(1)
    places = (blocks / largest[:, None].clamp(min=1e-9)).unsqueeze(-1).sub(NF4).abs().argmin(-1)
    places = places.flatten()[: len(flat)].to(torch.uint8)
    packed = (places[0::2] << 4 | places[1::2]).view(storage)[:, None]
    settings: dict[str, Any] = {
        "quant_type": "nf4", "blocksize": 64, "dtype": "float32", "shape": list(weight.shape),
    }  # fmt: skip
    stored = {name: packed, f"{name}.quant_map": NF4.clone()}
    if nested:
        code = torch.linspace(-1, 1, 256)
        offset = largest.mean()
        of_many = torch.nn.functional.pad(largest - offset, (0, -len(largest) % 256))
        outer = of_many.reshape(-1, 256).abs().amax(1)
        inner = (of_many.reshape(-1, 256) / outer[:, None]).unsqueeze(-1).sub(code).abs().argmin(-1)
        inner = inner.flatten()[: len(largest)]
        which = torch.arange(len(largest)) // 256
        stored |= {
            f"{name}.absmax": inner.to(torch.uint8),
            f"{name}.nested_absmax": outer,
            f"{name}.nested_quant_map": code,
        }
        settings |= {"nested_blocksize": 256, "nested_dtype": "float32"}
        settings["nested_offset"] = offset.item()
        largest = code[inner] * outer[which] + offset
    else:
        stored[f"{name}.absmax"] = largest
    state = torch.tensor(list(json.dumps(settings).encode()), dtype=torch.uint8)
    stored[f"{name}.quant_state.bitsandbytes__nf4"] = state
    number = torch.arange(len(flat))
    return stored, (NF4[places.int()] * largest[number // 64]).reshape(weight.shape)


def fp8(name: str, weight: Tensor, scales: str = "row") -> tuple[Held, Tensor]:
    """float8 with one scale, one for each row, or (finegrained FP8) one for each block of 16."""
    if scales == "blocks":
        out, into = weight.shape
        factors = torch.rand(-(-out // 16), -(-into // 16)) + 0.5
        whole = factors.repeat_interleave(16, 0)[:out].repeat_interleave(16, 1)[:, :into]
        numbers = (weight / whole).to(torch.float8_e4m3fn)
        return {name: numbers, f"{name}_scale_inv": factors}, numbers.float() * whole
    factor = weight.abs().amax(1, keepdim=True) / 448 if scales == "row" else torch.tensor(0.01)
    numbers = (weight / factor).to(torch.float8_e4m3fn)
    stored = {
        name: numbers, f"{name}_scale": factor,
        f"{name.removesuffix('weight')}input_scale": torch.tensor(1.0),
    }  # fmt: skip
    return stored, numbers.float() * factor


def with_lora(held: Held) -> None:
    """Weights of LoRA beside those they change, as ``state_dict`` of a PEFT model has them."""
    for name in [name for name in held if name.endswith("fc1.weight")]:
        out, into = held[name].shape
        layer = name.removesuffix("weight")
        held[f"{layer}lora_A.default.weight"] = torch.ones(2, into)
        held[f"{layer}lora_B.default.weight"] = torch.ones(out, 2)
