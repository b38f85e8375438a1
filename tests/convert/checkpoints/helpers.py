"""What the tests of checkpoints share."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from transformers.models.blip_2.modeling_blip_2 import (
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
)

from blip2cli.convert.checkpoints import CheckpointOptions, ConvertedCheckpoint, convert_checkpoint
from blip2cli.system.library_logging import silence_libraries
from tests.checkpoints import tiny_random_itm, tiny_random_opt, tiny_random_t5
from tests.convert.checkpoints.lavis import SMALL, Size

MAKERS = {"opt": tiny_random_opt, "t5": tiny_random_t5, "itm": tiny_random_itm}


def convert(source: str | Path, out: str | Path, **options: Any) -> ConvertedCheckpoint:
    """Convert one checkpoint."""
    named = {k: str(v) if isinstance(v, Path) else v for k, v in options.items()}
    return convert_checkpoint(CheckpointOptions((str(source),), str(out), **named))


def like(kind: str, directory: Path, size: Size = SMALL) -> Path:
    """A small random model of transformers with the settings of ``size``."""
    vision = {
        "hidden_size": size.width, "intermediate_size": size.inner, "image_size": size.image,
        "num_hidden_layers": size.depth, "num_attention_heads": size.heads,
        "patch_size": size.patch,
    }  # fmt: skip
    qformer = {
        "hidden_size": size.hidden, "intermediate_size": 4 * size.hidden,
        "num_hidden_layers": size.layers, "num_attention_heads": size.qformer_heads,
        "encoder_hidden_size": size.width, "max_position_embeddings": size.positions,
    }  # fmt: skip
    with silence_libraries():
        MAKERS[kind](directory, vision_config=vision, qformer_config=qformer)
    return directory


def loaded(directory: Path) -> Any:
    """transformers' own model of a directory, in float32."""
    classes: dict[str, Any] = {
        "Blip2ForConditionalGeneration": Blip2ForConditionalGeneration,
        "Blip2ForImageTextRetrieval": Blip2ForImageTextRetrieval,
    }
    (name,) = json.loads((directory / "config.json").read_text())["architectures"]
    with silence_libraries():
        return classes[name].from_pretrained(directory, dtype=torch.float32).eval()


def tensors(directory: Path) -> dict[str, Tensor]:
    """All weights of a directory, by the safetensors library."""
    found: dict[str, Tensor] = {}
    for file in sorted(directory.glob("*.safetensors")):
        with safe_open(file, "pt") as opened:
            found |= {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    return found


def same(one: dict[str, Tensor], two: dict[str, Tensor]) -> bool:
    """Whether names, precisions and bits agree."""
    return one.keys() == two.keys() and all(
        one[name].dtype == two[name].dtype and torch.equal(one[name], two[name]) for name in one
    )


def state_of(path: Path) -> dict[str, Tensor]:
    """The state dict in a file of LAVIS."""
    found: dict[str, Tensor] = torch.load(path, weights_only=True)["model"]
    return found


def texts(vocabulary: int) -> Tensor:
    """Three texts of seven made-up words, [3, 7]."""
    return torch.randint(5, vocabulary, (3, 7), generator=torch.Generator().manual_seed(4))
