"""Adapters as PEFT writes them, made without it."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

RANK = 2
PREFIX = "base_model.model."
DECODER = "language_model.model.decoder.layers"
Q_PROJ = f"{DECODER}.0.self_attn.q_proj"


def low_rank(
    base: Path,
    *modules: str,
    rank: int = RANK,
    prefix: str = PREFIX,
    own: str = "",
    seed: int = 0,
    file: str = "model.safetensors",
) -> dict[str, Tensor]:
    """Random matrices A and B for layers of the model in ``base``, by PEFT's names."""
    generator = torch.Generator().manual_seed(seed)
    shapes = {name: weight.shape for name, weight in load_file(base / file).items()}
    made: dict[str, Tensor] = {}
    for module in modules:
        out, into = shapes[f"{module}.weight"]
        for letter, shape in (("A", (rank, into)), ("B", (out, rank))):
            values = torch.randn(shape, generator=generator) * 0.3
            made[f"{prefix}{module}.lora_{letter}{own}.weight"] = values
    return made


def adapter(
    directory: Path,
    base: Path | str | None,
    weights: Mapping[str, Tensor],
    *,
    config: str = "adapter_config.json",
    file: str = "adapter_model.safetensors",
    **settings: Any,
) -> Path:
    """Write an adapter; ``settings`` of its configuration, others are PEFT's own."""
    directory.mkdir(parents=True, exist_ok=True)
    about = {
        "alpha_pattern": {},
        "auto_mapping": None,
        "base_model_name_or_path": None if base is None else str(base),
        "bias": "none",
        "fan_in_fan_out": False,
        "inference_mode": True,
        "init_lora_weights": True,
        "lora_alpha": 3,
        "lora_dropout": 0.05,
        "modules_to_save": None,
        "peft_type": "LORA",
        "peft_version": "0.17.1",
        "r": RANK,
        "rank_pattern": {},
        "revision": None,
        "target_modules": ["q_proj"],
        "task_type": None,
        "use_dora": False,
        "use_rslora": False,
    }
    (directory / config).write_text(json.dumps(about | settings))
    if file.endswith(".bin"):
        torch.save(dict(weights), directory / file)
    else:
        save_file(dict(weights), directory / file, metadata={"format": "pt"})
    return directory


def product(weights: Mapping[str, Tensor], module: str) -> Tensor:
    """``B @ A`` of a layer."""
    names: Sequence[Tensor] = [
        next(w for name, w in weights.items() if f"{module}.lora_{letter}" in name)
        for letter in "BA"
    ]
    return names[0] @ names[1]
