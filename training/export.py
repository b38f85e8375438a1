"""Export of a trained model as a checkpoint that plain transformers loads.

Weights lie in one file a component, named by transformers' own index. The embedded models beside
``tiny`` share its vision encoder: their index names its files (``../tiny/vision.safetensors``), so
that those weights are in the package once.
"""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TypeVar

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from transformers import (
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    Blip2Processor,
    InstructBlipForConditionalGeneration,
    InstructBlipProcessor,
)

from training.build import EmbeddedModel, zero_key_bias

INDEX = "model.safetensors.index.json"
# File of a component to the prefixes of its weights' names; the rest is in the third file.
COMPONENTS = {
    "vision.safetensors": ("vision_model.",),
    "qformer.safetensors": ("query_tokens", "qformer."),
}
LANGUAGE = "language.safetensors"


Model = TypeVar(
    "Model",
    Blip2ForConditionalGeneration,
    Blip2ForImageTextRetrieval,
    InstructBlipForConditionalGeneration,
)
Processor = Blip2Processor | InstructBlipProcessor


def publish(
    model: Model,
    processor: Processor,
    folder: Path,
    describe: Callable[[Model], tuple[str, str]],
    shared: Sequence[Path] = (),
) -> None:
    """Export the model, measure what was written, write its model card and print its scores.

    ``describe`` gives the card and the scores of a model in memory.
    """
    export(model, processor, folder, shared)
    card, scores = describe(model)
    (folder / "README.md").write_text(card, encoding="utf-8")
    print(scores, flush=True)


def export(
    model: EmbeddedModel,
    processor: Processor,
    folder: Path,
    shared: Sequence[Path] = (),
) -> None:
    """Write configuration, weights, tokenizer and processor to ``folder``.

    Weights are stored in float16 to halve the package; the configuration says float32, which is
    what they are computed in. The model in memory is rounded the same way, so that what is
    measured afterwards is what was written. A file whose weights equal those in one of the folders
    ``shared`` bit for bit is not written: the index names the other.
    """
    zero_key_bias(model)
    model.half().float()
    if not isinstance(model, Blip2ForImageTextRetrieval):
        text = model.language_model.config
        model.generation_config.update(
            bos_token_id=text.bos_token_id,
            eos_token_id=text.eos_token_id,
            pad_token_id=text.pad_token_id,
        )
    temporary = folder.with_name(folder.name + ".tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    model.save_pretrained(temporary)
    whole = temporary / "model.safetensors"
    weights = {name: tensor.half() for name, tensor in load_file(whole).items()}
    whole.unlink()
    _write_weights(weights, temporary, shared)
    processor.save_pretrained(temporary)
    folder.mkdir(parents=True, exist_ok=True)
    for file in sorted(path for path in temporary.rglob("*") if path.is_file()):
        file.chmod(0o644)  # safetensors writes files that only their owner may read
        place = folder / file.relative_to(temporary)
        place.parent.mkdir(exist_ok=True)
        file.replace(place)
    shutil.rmtree(temporary)


def _write_weights(weights: dict[str, Tensor], folder: Path, shared: Sequence[Path]) -> None:
    index: dict[str, str] = {}
    files: dict[str, dict[str, Tensor]] = {file: {} for file in (*COMPONENTS, LANGUAGE)}
    for name, tensor in weights.items():
        file = next(
            (file for file, begins in COMPONENTS.items() if name.startswith(begins)), LANGUAGE
        )
        files[file][name] = tensor
    for file, component in files.items():
        same = next((other for other in shared if _equal(component, other / file)), None)
        if same is not None:
            index |= dict.fromkeys(component, f"../{same.name}/{file}")
        else:
            save_file(component, folder / file, metadata={"format": "pt"})
            index |= dict.fromkeys(component, file)
    size = sum(tensor.nbytes for tensor in weights.values())
    content = {"metadata": {"total_size": size}, "weight_map": dict(sorted(index.items()))}
    (folder / INDEX).write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")


def _equal(component: dict[str, Tensor], file: Path) -> bool:
    if not file.is_file():
        return False
    other = load_file(file)
    return component.keys() == other.keys() and all(
        torch.equal(tensor, other[name]) for name, tensor in component.items()
    )
